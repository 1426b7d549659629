//! Signals that end the program while it has the terminal.

use anyhow::Context as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tokio::signal::unix::{SignalKind, signal};

/// Told to end, or not yet. While nobody catches them, these signals end a program at once, and the terminal would be
/// left as it is.
pub(super) struct Signals(Arc<AtomicBool>);

impl Signals {
    pub(super) fn catch() -> anyhow::Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kinds =
            [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()];
        let mut signals = {
            let _entered = runtime.enter();
            kinds.map(signal).into_iter().collect::<Result<Vec<_>, _>>().context("cannot catch signals")?
        };
        let ended = Arc::clone(&told);
        thread::spawn(move || {
            runtime.block_on(async {
                let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
                futures::future::select_all(any).await;
            });
            ended.store(true, Ordering::Release);
        });
        Ok(Self(told))
    }

    pub(super) fn is_told_to_end(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
