//! The client library's watcher, where client-go's reflector behaves better: it never asks for ever for a version that the
//! API server will not watch from, and waits longer after each failure even where lists fail. And where both would be deaf: after
//! the API server's storage was put back.

use super::era::Eras;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    api::ListParams,
    core::Status,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Config, DefaultBackoff, Event},
    },
};
use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Lists one kind and watches it from there. It never ends.
///
/// Lists ask for the most recent state (no `resourceVersion`), which no API server may answer from a cache that lags
/// behind: nothing that was seen is unseen by them. A watch that breaks is resumed where it was, unless the API server's
/// storage has been put back meanwhile.
pub(super) fn relisting<K>(api: Api<K>, config: Config, eras: &Eras) -> impl Stream<Item = Item<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watching = Arc::new(AtomicBool::new(false));
    let patience = Patience { backoff: DefaultBackoff::default(), watching: Arc::clone(&watching) };
    let following = Following { api, config, eras, attempt: None };
    let stream = stream::unfold(following, async |mut following| Some((following.next().await?, following)));
    stream
        .inspect(move |item| {
            if let Ok(Event::Apply(_) | Event::Delete(_)) = item {
                watching.store(true, Ordering::Relaxed);
            }
        })
        .backoff(patience)
}

type Item<K> = Result<Event<K>, watcher::Error>;

struct Following<'a, K> {
    api: Api<K>,
    config: Config,
    eras: &'a Eras,
    attempt: Option<Attempt<K>>,
}

/// A list, and the watches from there.
struct Attempt<K> {
    watcher: BoxStream<'static, Item<K>>,
    era: u64,
    /// The connection broke, and the API server may be another by now.
    was_interrupted: bool,
}

impl<K> Following<'_, K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Option<Item<K>> {
        let mut attempt = self.attempt.take().unwrap_or_else(|| self.begin());
        if attempt.was_interrupted {
            match version(&self.api, &self.config).await {
                Ok(version) if self.eras.is_over(attempt.era, version.as_deref()) => attempt = self.begin(),
                Ok(_) => {}
                Err(error) => {
                    self.attempt = Some(attempt);
                    return Some(Err(watcher::Error::WatchStartFailed(error)));
                }
            }
        }
        let item = attempt.watcher.next().await?;
        match &item {
            Ok(Event::InitApply(object) | Event::Apply(object) | Event::Delete(object)) => {
                self.eras.note(object.meta().resource_version.as_deref());
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) if is_lost(error) => return Some(item),
            Err(_) => {}
        }
        attempt.was_interrupted =
            matches!(item, Err(watcher::Error::WatchStartFailed(_) | watcher::Error::WatchFailed(_)));
        self.attempt = Some(attempt);
        Some(item)
    }

    fn begin(&self) -> Attempt<K> {
        let watcher = watcher::watcher(self.api.clone(), self.config.clone()).boxed();
        Attempt { watcher, era: self.eras.now(), was_interrupted: false }
    }
}

/// At which version the API server is: a list of one object says so.
async fn version<K>(api: &Api<K>, config: &Config) -> kube::Result<Option<String>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let only = ListParams {
        label_selector: config.label_selector.clone(),
        field_selector: config.field_selector.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    Ok(api.list_metadata(&only).await?.metadata.resource_version)
}

/// As client-go's: 0.8 s, twice as long after each further failure, up to 30 s, with jitter, and from the beginning after two
/// minutes without one.
///
/// The library would begin anew with whatever is no error, and the beginning of another attempt is none: a server that
/// refuses lists would be asked every second, by every node and for every kind (kubernetes#85342, #86430). Here only a change
/// that a watch has told of shows that all is well.
struct Patience {
    backoff: DefaultBackoff,
    watching: Arc<AtomicBool>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.backoff.next()
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        if self.watching.swap(false, Ordering::Relaxed) {
            self.backoff.reset();
        }
    }
}

/// Whether asking again for the same watch is of no use, whatever is waited. The library lists anew when a watch says 410,
/// but neither when it is refused so from the start, nor for other reasons.
fn is_lost(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => is_of_no_use(status),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => is_of_no_use(status),
        watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::InitialListFailed(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

fn is_of_no_use(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        // Rights, and load, have nothing to do with the version.
        401 | 403 | 404 | 429 => false,
        400..500 => true,
        // A server whose storage was put back to an earlier state.
        _ => causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::StatusDetails;

    #[test]
    fn a_version_that_cannot_be_watched_from_is_told_from_what_passes_by_itself() {
        let status = |code| Status { code, ..Status::failure("no", "No") };
        let start = |code| watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status(code))));
        for code in [400, 410, 422] {
            assert!(
                is_lost(&start(code)) && is_lost(&watcher::Error::WatchError(Box::new(status(code)))),
                "{code}"
            );
        }
        for code in [401, 403, 404, 429, 500, 503, 504] {
            assert!(!is_lost(&start(code)), "{code}");
        }
        let details = serde_json::json!({"causes": [{"reason": "ResourceVersionTooLarge"}]});
        let details: StatusDetails = serde_json::from_value(details).unwrap();
        let future = Status { details: Some(details), ..status(504) };
        assert!(is_lost(&watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(future)))));
    }

    #[test]
    fn each_failure_is_waited_for_longer_until_a_watch_has_told_of_a_change() {
        let watching = Arc::new(AtomicBool::new(false));
        let mut patience = Patience { backoff: DefaultBackoff::default(), watching: Arc::clone(&watching) };
        let mut waits = Vec::new();
        for attempt in 0..7 {
            // Another attempt begins, or a list has come.
            patience.reset();
            waits.push(patience.next().unwrap().as_secs_f64());
            // The jitter is as long as the wait at most, and the longest wait is half a minute.
            let shortest = (0.8 * f64::from(1 << attempt)).min(30.0);
            assert!(waits[attempt] >= shortest && waits[attempt] <= 2.0 * shortest, "{waits:?}");
        }
        watching.store(true, Ordering::Relaxed);
        patience.reset();
        assert!(patience.next().unwrap() <= Duration::from_millis(1600));
    }
}
