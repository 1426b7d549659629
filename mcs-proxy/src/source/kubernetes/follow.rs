use super::{
    health::Health,
    uids::{UidEntry, Uids},
};
use crate::{
    model::{NamespacedName, ObjectKind, ObjectRef, Problem},
    source::{Event, EventSender, Object},
};
use futures::{Stream, StreamExt};
use kube::{Resource, ResourceExt, runtime::watcher};
use std::{collections::BTreeSet, pin::pin};
use tokio::time::Instant;
use tracing::debug;

/// What an object of the API server's turned out to be.
pub(super) enum Decoded {
    Object(Object),
    /// It does not concern us, or not any longer.
    Nothing,
    /// It is not as its kind should be: what was last good of it stays.
    Unreadable(Problem),
}

impl From<Option<Object>> for Decoded {
    fn from(object: Option<Object>) -> Self {
        object.map_or(Self::Nothing, Self::Object)
    }
}

/// Why [`follow`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    NobodyListens,
    /// The API server does not know the kind.
    NoSuchKind,
}

/// Tells of one kind what a [`relisting`](super::relisting) stream has, until nobody listens any more, or the kind is gone.
/// The objects of a list are told as a whole, so that no half of it is ever taken for all.
pub(super) async fn follow<K>(
    stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    mut decode: impl FnMut(&K) -> Decoded,
    health: &mut Health,
    uids: &Uids,
    events: &EventSender,
) -> End
where
    K: Resource,
{
    let kind = health.kind();
    let mut stream = pin!(stream);
    let mut listing = Listing::default();
    let mut unreadable = Unreadable::default();
    loop {
        let item = tokio::select! {
            item = stream.next() => item,
            () = health.patience() => {
                health.silent();
                continue;
            }
        };
        let told = match item {
            None => return End::NobodyListens,
            Some(Err(error)) if Health::is_absence(&error) && kind == ObjectKind::ServiceImport => {
                return End::NoSuchKind;
            }
            Some(Err(error)) => {
                health.failed(&error, Instant::now());
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listing = Listing::default();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listing.uids.extend(uids.entry(&key(&object), object.uid().as_deref()));
                match decode(&object) {
                    Decoded::Object(object) => listing.objects.push(object),
                    Decoded::Nothing => {}
                    Decoded::Unreadable(problem) => listing.problems.push(problem),
                }
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let Listing { objects, problems, uids: known } = std::mem::take(&mut listing);
                uids.list(kind, known);
                unreadable.list(kind, objects, problems)
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                uids.set(kind, &key(&object), object.uid().as_deref());
                unreadable.change(kind, key(&object), decode(&object))
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                uids.set(kind, &key(&object), None);
                unreadable.change(kind, key(&object), Decoded::Nothing)
            }
        };
        health.answered();
        // With this line and the one about what was programmed, anyone can tell the API server's delay from ours.
        debug!(kind = %kind, "told");
        if events.send_all(told).await.is_err() {
            return End::NobodyListens;
        }
    }
}

fn key<K: Resource>(object: &K) -> NamespacedName {
    NamespacedName::new(object.namespace().unwrap_or_default(), object.name_any())
}

/// A list that is being read. Nothing else is kept of its objects.
#[derive(Default)]
struct Listing {
    objects: Vec<Object>,
    problems: Vec<Problem>,
    uids: Vec<UidEntry>,
}

/// Objects that were told of as unreadable.
#[derive(Default)]
struct Unreadable(BTreeSet<ObjectRef>);

impl Unreadable {
    fn list(&mut self, kind: ObjectKind, objects: Vec<Object>, problems: Vec<Problem>) -> Vec<Event> {
        let mut events: Vec<_> = std::mem::take(&mut self.0).into_iter().map(Event::Mended).collect();
        events.push(Event::Replaced(kind, objects));
        for problem in problems {
            self.0.insert(problem.object.clone());
            events.push(Event::Problem(problem));
        }
        events
    }

    fn change(&mut self, kind: ObjectKind, key: NamespacedName, decoded: Decoded) -> Vec<Event> {
        let object = ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() };
        let mut events: Vec<_> = self.0.take(&object).into_iter().map(Event::Mended).collect();
        events.push(match decoded {
            Decoded::Object(object) => Event::Applied(object),
            // What does not concern us (any longer) is gone.
            Decoded::Nothing => Event::Deleted(kind, key),
            Decoded::Unreadable(problem) => {
                self.0.insert(object);
                Event::Problem(problem)
            }
        });
        events
    }
}
