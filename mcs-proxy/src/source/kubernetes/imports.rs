use super::{
    era::Eras,
    follow::{Decoded, End, follow},
    health::Health,
    relisting::relisting,
    uids::Uids,
};
use crate::{
    model::ObjectKind,
    source::{
        Event, EventSender,
        decode::{Manifest, manifests},
    },
};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher,
};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tracing::info;

const GROUP: &str = "multicluster.x-k8s.io";
const PLURAL: &str = "serviceimports";
/// The best first. They are two views of the same objects, so that only one is ever watched.
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
/// A kind that seems to have vanished is asked for once more after so long, before that is believed.
const DOUBT: Duration = Duration::from_secs(1);

/// Follows the ServiceImports for as long as somebody listens, whether or not their CRD is there now: every `interval`
/// the API server is asked which version it serves, by discovery, which takes no rights.
pub(super) async fn follow_imports(
    client: Client,
    cluster_name: &str,
    interval: Duration,
    mut health: Health,
    uids: &Uids,
    eras: &Eras,
    events: &EventSender,
) {
    let mut known = Known::Nothing;
    loop {
        let version = served(&client, &mut health, known).await;
        let Some(version) = version else {
            if known != Known::Absent {
                info!("{GROUP} has no {PLURAL} here: none are followed until it has");
                if events.send(Event::Replaced(ObjectKind::ServiceImport, Vec::new())).await.is_err() {
                    return;
                }
            }
            known = Known::Absent;
            sleep(jittered(interval)).await;
            continue;
        };
        info!("following {PLURAL} of {GROUP}/{version}");
        known = Known::Present;
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(GROUP, version, "ServiceImport"),
            PLURAL,
        );
        let api = Api::<DynamicObject>::all_with(client.clone(), &kind);
        let decode = |object: &DynamicObject| decode(object, version, cluster_name);
        let stream = relisting(api, watcher::Config::default(), eras);
        tokio::select! {
            end = follow(stream, decode, &mut health, uids, events) => match end {
                End::NobodyListens => return,
                End::NoSuchKind => {}
            },
            () = until_another(&client, version, interval) => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    Absent,
    Present,
}

/// The version to watch; asked for until there is an answer.
async fn served(client: &Client, health: &mut Health, known: Known) -> Option<&'static str> {
    let mut wait = Duration::from_secs(1);
    let mut doubted = false;
    loop {
        match discover(client).await {
            Ok(None) if known == Known::Present && !doubted => {
                doubted = true;
                sleep(DOUBT).await;
            }
            Ok(version) => return version,
            Err(error) => {
                health.failed(&watcher::Error::InitialListFailed(error), Instant::now());
                sleep(jittered(wait)).await;
                wait = (2 * wait).min(Duration::from_secs(30));
            }
        }
    }
}

/// Returns once the API server serves another version than this one, or none. A failure to tell is no reason: the
/// watch has its own way with those.
async fn until_another(client: &Client, version: &str, interval: Duration) {
    loop {
        sleep(jittered(interval)).await;
        if let Ok(now) = discover(client).await
            && now != Some(version)
        {
            return;
        }
    }
}

/// An API server that is starting and does not know yet what it serves says 503, not 404.
async fn discover(client: &Client) -> kube::Result<Option<&'static str>> {
    for version in VERSIONS {
        match client.list_api_group_resources(&format!("{GROUP}/{version}")).await {
            Ok(list) if list.resources.iter().any(|resource| resource.name == PLURAL) => {
                return Ok(Some(version));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn decode(object: &DynamicObject, version: &str, cluster_name: &str) -> Decoded {
    let mut document = object.data.clone();
    document["apiVersion"] = format!("{GROUP}/{version}").into();
    document["kind"] = "ServiceImport".into();
    document["metadata"] = serde_json::to_value(&object.metadata).unwrap_or_default();
    match manifests(document, cluster_name).pop() {
        Some(Manifest::Object(object)) => Decoded::Object(object),
        Some(Manifest::Unreadable { problem, .. }) => Decoded::Unreadable(problem),
        Some(Manifest::Nameless { .. }) | None => Decoded::Nothing,
    }
}

/// Between three quarters and five quarters of it, so that the nodes of a cluster do not all ask at once.
fn jittered(interval: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1024;
    interval.mul_f64(0.75 + random as f64 / 2048.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_within_bounds() {
        let waits: Vec<_> = (0..64).map(|_| jittered(Duration::from_secs(100)).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (75.0..=125.0).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait < 95.0) && waits.iter().any(|wait| *wait > 105.0), "{waits:?}");
    }
}
