use super::uids::Uids;
use crate::{
    model::{NamespacedName, ObjectKind, ObjectRef},
    observe::{
        events::{Board, Topic},
        with_causes,
    },
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// `reportingController`
pub(super) const CONTROLLER: &str = "mcs-proxy.io/mcs-proxy";
/// `reportingInstance` may have so many characters.
pub(super) const LONGEST_INSTANCE: usize = 128;
/// Between two Events: a node that sees a great many problems is no burden.
const PACE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);
/// Waits between attempts that fail.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Writes the Events of the board, one after the other, for as long as it is polled.
///
/// It takes the right to `create` Events, and nothing else is ever done with them. An Event that exists was written by
/// another node. While they cannot be written, they wait, and one line of the log says so.
pub(super) async fn announce(client: Client, board: &Board, uids: &Uids, node_name: &str) {
    let instance: String = node_name.chars().take(LONGEST_INSTANCE).collect();
    let mut wait = FIRST_WAIT;
    let mut failing = false;
    loop {
        let (topic, note) = board.next().await;
        let ObjectRef { kind, namespace, name } = &topic.object;
        let Some(uid) = uids.get(*kind, &NamespacedName::new(&**namespace, &**name)) else {
            // It is gone, and what is wrong with it will be in a moment.
            board.settled(&topic, LONGEST_WAIT);
            continue;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = event(&topic, note, &uid, now, &instance);
        let api = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or_default());
        match create(&api, &event).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    info!("Events are written again");
                }
                wait = FIRST_WAIT;
                board.settled(&topic, topic.until_renewal(&uid, now));
                sleep(PACE).await;
            }
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(
                        "Event about {}: {why}; until it can be written, problems are told of in the log alone",
                        topic.object
                    );
                }
                debug!("Event about {}: {why}", topic.object);
                sleep(wait).await;
                wait = (2 * wait).min(LONGEST_WAIT);
            }
        }
    }
}

/// # Errors
/// It is not there, but may be at another attempt; with the way out.
pub(super) async fn create(api: &Api<Event>, event: &Event) -> Result<(), String> {
    match timeout(PATIENCE, api.create(&PostParams::default(), event)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) => match status.code {
            // Another node was faster, or the daemon that ran here before.
            409 => Ok(()),
            // The namespace is on its way out, or gone.
            404 => Ok(()),
            403 if status.message.contains("being terminated") => Ok(()),
            403 => Err(format!("{}; grant create on events.events.k8s.io (see deploy/base)", status.message)),
            422 => {
                warn!("an Event that the API server does not take: {}; please report this", status.message);
                Ok(())
            }
            _ => Err(status.message.clone()),
        },
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(_) => Err(format!("no answer for {} s", PATIENCE.as_secs())),
    }
}

/// `now`: since the epoch.
fn event(topic: &Topic, note: String, uid: &str, now: Duration, instance: &str) -> Event {
    let ObjectRef { kind, namespace, name } = &topic.object;
    // Events about what is in no namespace are in this one.
    let own_namespace = if namespace.is_empty() { "default" } else { namespace };
    let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    Event {
        metadata: ObjectMeta {
            name: Some(topic.event_name(uid, now)),
            namespace: Some(own_namespace.to_owned()),
            ..Default::default()
        },
        action: Some("Program".into()),
        event_time: Some(MicroTime(Timestamp::from_microsecond(micros).unwrap_or_default())),
        note: Some(note),
        reason: Some(topic.reason.to_string()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version(*kind).to_owned()),
            kind: Some(kind.to_string()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(name.clone()),
            uid: Some(uid.to_owned()),
            ..Default::default()
        }),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some("Warning".into()),
        ..Default::default()
    }
}

const fn api_version(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Service | ObjectKind::Node | ObjectKind::ConfigMap | ObjectKind::File => "v1",
        ObjectKind::EndpointSlice => "discovery.k8s.io/v1",
        // Whichever version is followed: the object is the same.
        ObjectKind::ServiceImport => "multicluster.x-k8s.io/v1beta1",
    }
}
