//! Ends connections to clusters that are dropped, on a thread of its own.

use crate::{
    dataplane::{
        ended::{Dropped, EndedError, close_sockets, end_connections},
        pins::PinDir,
    },
    observe::with_causes,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task, time};
use tracing::{info, warn};

/// A handshake that was under way at the first look is over by the second.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to end, for those who see to it.
#[derive(Debug)]
pub(super) struct Ending(watch::Sender<Arc<Dropped>>);

impl Ending {
    pub(super) fn start(pin_dir: PinDir) -> Self {
        let (sender, receiver) = watch::channel(Arc::default());
        task::spawn(follow(pin_dir, receiver));
        Self(sender)
    }

    /// Has these ended, unless they are those of the last time.
    pub(super) fn follow(&self, dropped: Arc<Dropped>) {
        self.0.send_if_modified(|known| {
            let is_news = !Arc::ptr_eq(known, &dropped);
            *known = dropped;
            is_news
        });
    }

    /// Looks once more for those that are known.
    pub(super) fn look(&self) {
        self.0.send_modify(|_| {});
    }
}

async fn follow(pin_dir: PinDir, mut asked: watch::Receiver<Arc<Dropped>>) {
    let [mut packets, mut sockets] = [Told::default(), Told::default()];
    while asked.changed().await.is_ok() {
        let dropped = Arc::clone(&asked.borrow_and_update());
        if dropped.is_empty() {
            continue;
        }
        for look in 0..2 {
            if look > 0 {
                time::sleep(AGAIN).await;
            }
            let (dir, dropped) = (pin_dir.clone(), Arc::clone(&dropped));
            let looked = task::spawn_blocking(move || {
                (end_connections(&dir, &dropped), close_sockets(&dir, &dropped))
            });
            let Ok((ended, closed)) = looked.await else { return };
            packets.tell(
                ended,
                "reset with their next packet",
                "connections to clusters that the settings drop",
            );
            sockets.tell(closed, "closed (ECONNABORTED)", "sockets of host processes to such clusters");
        }
    }
}

/// A failure is told once, until it is another.
#[derive(Debug, Default)]
struct Told(Option<String>);

impl Told {
    fn tell(&mut self, outcome: Result<usize, EndedError>, done: &str, what: &str) {
        match outcome {
            Ok(0) => {}
            Ok(ended) => info!(ended, "{what}: {done}"),
            Err(failure) => {
                let failure = with_causes(&failure).to_string();
                if self.0.as_ref() != Some(&failure) {
                    warn!("{failure}; {what} go on");
                    self.0 = Some(failure);
                }
            }
        }
    }
}
