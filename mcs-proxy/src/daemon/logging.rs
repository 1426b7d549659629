//! The daemon's log: to stderr, one line a record, `RUST_LOG` chooses what.

use aya_log::EbpfLogger;
use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};
use tokio::time;
use tracing_subscriber::EnvFilter;

pub(super) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .init();
}

/// What the eBPF programs log.
pub(super) struct ProgramLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl ProgramLog {
    pub(super) const fn new(logger: EbpfLogger<&'static dyn log::Log>) -> Self {
        Self { logger }
    }

    /// Hands on what the programs log, for as long as it is polled. At intervals: it is for development, and waiting
    /// for the ring to become readable takes `unsafe` code.
    pub(super) async fn follow(mut self) {
        let mut flush = time::interval(Duration::from_millis(100));
        loop {
            flush.tick().await;
            self.logger.flush();
        }
    }
}
