use anyhow::{Context, Result};
use mcs_proxy_tests::Namespace;
use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longer than any answer takes, and shorter than the first SYN waits for its second.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(5);

/// New connections, one after the other, until it is dropped.
pub(super) struct Traffic {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Counts {
    ends: AtomicBool,
    answered: AtomicU64,
    unanswered: AtomicU64,
}

impl Traffic {
    /// To these in turn.
    pub(super) fn start(namespace: &Namespace, services: &[SocketAddr]) -> Self {
        let counts = Arc::<Counts>::default();
        let (namespace, services, counting) = (namespace.clone(), services.to_vec(), Arc::clone(&counts));
        let thread = thread::spawn(move || {
            namespace.run(move || -> Result<()> {
                for service in services.iter().cycle() {
                    if counting.ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let count = match TcpStream::connect_timeout(service, PATIENCE) {
                        Ok(_) => &counting.answered,
                        Err(_) => &counting.unanswered,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
                Ok(())
            })
        });
        Self { counts, thread: Some(thread) }
    }

    pub(super) fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    pub(super) fn unanswered(&self) -> u64 {
        self.counts.unanswered.load(Ordering::Relaxed)
    }

    /// Waits until `wanted` holds.
    pub(super) fn wait(&self, what: &str, mut wanted: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !wanted(self)? {
            anyhow::ensure!(start.elapsed() < Duration::from_secs(30), "no {what}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> Result<()> {
        self.counts.ends.store(true, Ordering::Relaxed);
        self.thread.take().context("it ended before")?.join().unwrap()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.counts.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
