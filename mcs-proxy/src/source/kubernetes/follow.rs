use super::health::Health;
use crate::{
    model::NamespacedName,
    source::{Event, Object},
};
use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, pin::pin};
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

/// Lists and watches one kind until nobody listens any more.
///
/// The watcher resumes a watch that breaks where it was, and lists anew only when the API server no longer knows that
/// version (410). The objects of a list are told as a whole, so that no half of it is ever taken for all.
pub(super) async fn follow<K>(
    api: Api<K>,
    decode: impl Fn(&K) -> Option<Object>,
    mut health: Health,
    events: &mpsc::Sender<Event>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = health.kind();
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listed = Vec::new();
    loop {
        let item = tokio::select! {
            item = stream.next() => item,
            () = health.patience() => {
                health.silent();
                continue;
            }
        };
        let event = match item {
            None => return,
            Some(Err(error)) => {
                health.failed(&error, Instant::now());
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed.extend(decode(&object));
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => Event::Replaced(kind, std::mem::take(&mut listed)),
            // What does not concern us (any longer) is gone.
            Some(Ok(watcher::Event::Apply(object))) => {
                decode(&object).map_or_else(|| Event::Deleted(kind, key(&object)), Event::Applied)
            }
            Some(Ok(watcher::Event::Delete(object))) => Event::Deleted(kind, key(&object)),
        };
        health.answered();
        // With this line and the one about what was programmed, anyone can tell the API server's delay from ours.
        debug!(kind = %kind, "told");
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn key<K: Resource>(object: &K) -> NamespacedName {
    NamespacedName::new(object.namespace().unwrap_or_default(), object.name_any())
}
