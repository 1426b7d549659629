//! Closes connected UDP sockets whose backend is gone, on a thread of its own.

use crate::{
    dataplane::{pins::PinDir, stranded::close_stranded},
    observe::with_causes,
};
use std::sync::Arc;
use tokio::{sync::Notify, task};
use tracing::{info, warn};

/// Asks for a look through the sockets; several requests at once are one look.
#[derive(Debug)]
pub(super) struct Stranded(Arc<Notify>);

impl Stranded {
    pub(super) fn start(pin_dir: PinDir) -> Self {
        let asked = Arc::new(Notify::new());
        task::spawn(follow(pin_dir, asked.clone()));
        Self(asked)
    }

    pub(super) fn look(&self) {
        self.0.notify_one();
    }
}

async fn follow(pin_dir: PinDir, asked: Arc<Notify>) {
    // A failure is told once, until it is another.
    let mut known = None;
    loop {
        asked.notified().await;
        let dir = pin_dir.clone();
        let Ok(outcome) = task::spawn_blocking(move || close_stranded(&dir)).await else { return };
        match outcome {
            Ok(0) => {}
            Ok(closed) => {
                info!(closed, "connected UDP sockets whose endpoint is gone: closed (ECONNABORTED)");
            }
            Err(failure) => {
                let failure = with_causes(&failure).to_string();
                if known.as_ref() != Some(&failure) {
                    warn!(
                        "{failure}; host processes whose connected UDP sockets have lost their endpoint must notice \
                         by themselves"
                    );
                    known = Some(failure);
                }
            }
        }
    }
}
