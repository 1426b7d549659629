//! Connections that stream bytes and compare what comes back, and others that come and go.

use anyhow::{Context, Result, bail, ensure};
use mcs_proxy_tests::{
    Namespace,
    client::{self, Connection},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two bodies of a stream, or two short connections: the machine is to have time for the rest.
const PACE: Duration = Duration::from_millis(20);
/// A body fills several segments, and its end is anywhere in one.
const BODIES: [usize; 5] = [1, 1447, 4096, 16_384, 40_001];

pub(crate) struct Load {
    client: Namespace,
    stop: Arc<AtomicBool>,
    workers: Vec<Worker>,
}

struct Worker {
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    pub(crate) fn new(client: &Namespace) -> Self {
        Self { client: client.clone(), stop: Arc::default(), workers: Vec::new() }
    }

    /// Opens a connection now, and streams over it until the end: always to the pod that it was opened to.
    pub(crate) fn stream(&mut self, service: SocketAddr) -> Result<()> {
        let mut connection = Connection::open(&self.client, service)?;
        let pod = connection.ask()?;
        let mut seed = self.workers.len() as u64;
        self.work(move |round| {
            let body = noise(&mut seed, BODIES[round as usize % BODIES.len()]);
            let now = connection.echo(&body)?;
            ensure!(now == pod, "a connection to {pod} was answered by {now}");
            Ok(())
        });
        Ok(())
    }

    /// Opens one connection after the other.
    pub(crate) fn come_and_go(&mut self, service: SocketAddr) {
        let client = self.client.clone();
        self.work(move |_| client::http(&client, service, 1).map(drop));
    }

    fn work(&mut self, mut round: impl FnMut(u64) -> Result<()> + Send + 'static) {
        let (stop, rounds) = (Arc::clone(&self.stop), Arc::<AtomicU64>::default());
        let done = Arc::clone(&rounds);
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let number = done.load(Ordering::Relaxed);
                round(number).with_context(|| format!("round {number}"))?;
                done.store(number + 1, Ordering::Relaxed);
                thread::sleep(PACE);
            }
            Ok(())
        });
        self.workers.push(Worker { rounds, thread });
    }

    /// Waits until every connection has gone so many rounds more.
    pub(crate) fn wait_for_rounds(&mut self, number: u64) -> Result<()> {
        let goals: Vec<u64> =
            self.workers.iter().map(|worker| worker.rounds.load(Ordering::Relaxed) + number).collect();
        let start = Instant::now();
        for (index, goal) in goals.into_iter().enumerate() {
            while self.workers[index].rounds.load(Ordering::Relaxed) < goal {
                if let Some(failed) = self.workers.iter().position(|worker| worker.thread.is_finished()) {
                    let worker = self.workers.swap_remove(failed);
                    return worker.thread.join().unwrap().context("a connection failed");
                }
                ensure!(start.elapsed() < PATIENCE, "a connection has stood still for {PATIENCE:?}");
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Ends it all; any error that a connection met is an error.
    pub(crate) fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let results = self.workers.into_iter().map(|worker| worker.thread.join().unwrap());
        let errors: Vec<String> = results.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        if !errors.is_empty() {
            bail!("{} connections failed:\n{}", errors.len(), errors.join("\n"));
        }
        Ok(())
    }
}

/// Bytes that are never the same twice (xorshift64*).
fn noise(seed: &mut u64, length: usize) -> Vec<u8> {
    *seed = seed.wrapping_mul(2_685_821_657_736_338_717).wrapping_add(1);
    let mut state = *seed | 1;
    let byte = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(2_685_821_657_736_338_717) >> 56) as u8
    };
    std::iter::repeat_with(byte).take(length).collect()
}
