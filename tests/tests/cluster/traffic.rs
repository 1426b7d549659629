//! Traffic that notes what it loses.

use anyhow::Result;
use mcs_proxy_tests::{
    Namespace,
    client::{Connection, http},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) answers: u32,
    pub(super) lost: Vec<String>,
    /// The longest that an answer took.
    pub(super) longest: Duration,
}

/// Traffic that goes on until it is asked to stop.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

impl Traffic {
    /// Connections that stay open, each asking in turn; one that is lost is lost for good.
    pub(super) fn steady(client: &Namespace, service: SocketAddr, connections: usize) -> Result<Self> {
        let open = |_| Connection::open(client, service).map(Some);
        let mut open = (0..connections).map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self::start(move || {
            for slot in &mut open {
                let Some(connection) = slot else { continue };
                if let Err(error) = connection.ask() {
                    *slot = None;
                    return Some(Err(error));
                }
            }
            thread::sleep(Duration::from_millis(20));
            Some(Ok(()))
        }))
    }

    /// A new connection every few milliseconds.
    pub(super) fn fresh(client: &Namespace, service: SocketAddr) -> Self {
        let client = client.clone();
        Self::start(move || {
            thread::sleep(Duration::from_millis(5));
            Some(http(&client, service, 1).map(drop))
        })
    }

    fn start(mut act: impl FnMut() -> Option<Result<()>> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut report = Report::default();
            let begun = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                match act() {
                    Some(Ok(())) => report.answers += 1,
                    Some(Err(error)) => report.lost.push(format!("after {:.1?}: {error:#}", begun.elapsed())),
                    None => {}
                }
                report.longest = report.longest.max(start.elapsed());
            }
            report
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
