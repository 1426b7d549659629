use super::{
    announce::{CONTROLLER, LONGEST_INSTANCE, create},
    uids::Uids,
};
use crate::{
    model::{NamespacedName, ObjectKind, UNINSTALL_ANNOTATION},
    observe::events::{Board, Report},
    source::Scope,
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client};
use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};
use tokio::time::sleep;
use tracing::warn;

/// Someone waits for it.
const WAIT: Duration = Duration::from_secs(1);
/// `note` may have 1 kB.
const LONGEST_NOTE: usize = 1024;

/// Writes the board's reports as Events about the settings' ConfigMap, each until it is there, for as long as it is polled.
pub(super) async fn report(client: Client, board: &Board, uids: &Uids, scope: &Scope) {
    loop {
        let report = board.next_report().await;
        let Some(settings) = &scope.settings else { continue };
        let api = Api::namespaced(client.clone(), &settings.namespace);
        let mut told = false;
        loop {
            let uid = uids.get(ObjectKind::ConfigMap, settings);
            match create(&api, &event(&report, settings, uid, &scope.node_name)).await {
                Ok(()) => break,
                Err(why) => {
                    if !std::mem::replace(&mut told, true) {
                        warn!("Event about ConfigMap {settings}: {why}; it is tried again");
                    }
                    sleep(WAIT).await;
                }
            }
        }
    }
}

fn event(report: &Report, settings: &NamespacedName, uid: Option<String>, node: &str) -> Event {
    let now = Timestamp::now();
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    let name = format!("mcs-proxy-uninstall.{:x}.{:016x}", now.as_microsecond(), hasher.finish());
    let reference = |kind: &str, name: &str| ObjectReference {
        api_version: Some("v1".into()),
        kind: Some(kind.into()),
        name: Some(name.to_owned()),
        ..Default::default()
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(settings.namespace.clone()),
            labels: Some([(UNINSTALL_ANNOTATION.to_owned(), report.uninstall.clone())].into()),
            ..Default::default()
        },
        action: Some("Uninstall".into()),
        event_time: Some(MicroTime(now)),
        note: Some(report.note.chars().take(LONGEST_NOTE).collect()),
        reason: Some(report.reason.into()),
        regarding: Some(ObjectReference {
            namespace: Some(settings.namespace.clone()),
            uid,
            ..reference("ConfigMap", &settings.name)
        }),
        // `reportingInstance` may be too short for it.
        related: Some(reference("Node", node)),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(node.chars().take(LONGEST_INSTANCE).collect()),
        type_: Some(if report.is_warning { "Warning" } else { "Normal" }.into()),
        ..Default::default()
    }
}
