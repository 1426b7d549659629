//! The way from a source to the writer: each event with the time at which it was decoded, and beside the events how the
//! source gets on with whoever it asks.

use super::Event;
use crate::model::ObjectKind;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::mpsc;

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub event: Event,
    /// When it was known what it says: waiting for the writer comes after that.
    pub decoded: Instant,
}

/// What a source has to send its events by.
#[derive(Clone, Debug)]
pub struct EventSender {
    events: mpsc::Sender<Told>,
    reach: Reach,
}

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NobodyListens;

/// A way on which so many events may wait. What the source cannot reach is told by `reach`.
#[must_use]
pub fn channel(waiting: usize, reach: &Reach) -> (EventSender, mpsc::Receiver<Told>) {
    let (events, receiver) = mpsc::channel(waiting);
    (EventSender { events, reach: reach.clone() }, receiver)
}

impl EventSender {
    /// # Errors
    /// Nobody listens any more.
    pub async fn send(&self, event: Event) -> Result<(), NobodyListens> {
        self.send_all([event]).await
    }

    /// Sends what was decoded together.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub async fn send_all(&self, events: impl IntoIterator<Item = Event>) -> Result<(), NobodyListens> {
        let decoded = Instant::now();
        for event in events {
            self.events.send(Told { event, decoded }).await.map_err(|_| NobodyListens)?;
        }
        Ok(())
    }

    /// Returns when nobody listens any more.
    pub async fn closed(&self) {
        self.events.closed().await;
    }

    #[must_use]
    pub const fn reach(&self) -> &Reach {
        &self.reach
    }
}

/// What a source cannot reach now, by kind: for who looks at the daemon from outside. The log tells the same.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Mutex<Troubles>>);

pub type Troubles = BTreeMap<ObjectKind, Trouble>;

/// Why objects of a kind cannot be listed or watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// As it was at the last attempt.
    pub why: String,
    /// Since the first attempt that failed.
    pub since: Instant,
}

impl Reach {
    pub fn failed(&self, kind: ObjectKind, why: String) {
        let mut troubles = self.troubles_now();
        let since = troubles.get(&kind).map_or_else(Instant::now, |trouble| trouble.since);
        troubles.insert(kind, Trouble { why, since });
    }

    pub fn answered(&self, kind: ObjectKind) {
        self.troubles_now().remove(&kind);
    }

    #[must_use]
    pub fn troubles(&self) -> Troubles {
        self.troubles_now().clone()
    }

    fn troubles_now(&self) -> MutexGuard<'_, Troubles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_the_writer_keeps_the_time_at_which_it_was_decoded() {
        let (sender, mut events) = channel(1, &Reach::default());
        let gone = |name: &str| {
            Event::Deleted(ObjectKind::Service, crate::model::NamespacedName::new("default", name))
        };
        let sending = tokio::spawn(async move { sender.send_all([gone("a"), gone("b")]).await });
        let first = events.recv().await.unwrap();
        let second = events.recv().await.unwrap();
        assert_eq!(first.decoded, second.decoded);
        assert_eq!((first.event, second.event), (gone("a"), gone("b")));
        sending.await.unwrap().unwrap();
    }

    #[test]
    fn a_trouble_lasts_until_there_is_an_answer() {
        let reach = Reach::default();
        reach.clone().failed(ObjectKind::Node, "no answer".into());
        let Trouble { why, since } = reach.troubles()[&ObjectKind::Node].clone();
        assert_eq!((why.as_str(), reach.troubles().len()), ("no answer", 1));
        reach.failed(ObjectKind::Node, "refused".into());
        assert_eq!(reach.troubles()[&ObjectKind::Node], Trouble { why: "refused".into(), since });
        reach.answered(ObjectKind::Node);
        assert_eq!(reach.troubles(), BTreeMap::new());
    }
}
