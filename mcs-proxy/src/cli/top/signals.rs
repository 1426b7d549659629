//! Signals that end the program while it has the terminal.

use anyhow::Context as _;
use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// In which whoever shows something ends by itself.
const GRACE: Duration = Duration::from_secs(1);

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
            // Of a terminal that is gone crossterm reads nothing without end, and nobody looks at the word.
            thread::sleep(GRACE);
            // Where there is one still, it must not be left as it is.
            let _restored = ratatui::try_restore();
            process::exit(0);
        });
        Ok(Self(told))
    }

    pub(super) fn is_told_to_end(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
