//! `--source kubernetes`: the objects of all namespaces, watched at an API server.
//!
//! Rights needed: get, list and watch on `services`, `endpointslices.discovery.k8s.io`,
//! `serviceimports.multicluster.x-k8s.io` and `nodes`, and on the one ConfigMap of `--settings`. Of Nodes and ConfigMaps
//! only the one is asked for, by a field selector. And create on `events.events.k8s.io`, the only thing that is ever
//! written. Objects become the model's at once, so that what the model leaves out
//! (managed fields, selectors, target references) is not kept.

mod announce;
mod connect;
mod era;
mod follow;
mod health;
mod imports;
mod relisting;
mod report;
mod uids;

pub use connect::{KubernetesError, Locations, client};

use super::{Object, Scope, decode};
use crate::{
    model::{Interner, NamespacedName, ObjectKind},
    observe::events::Board,
    source::{Event, EventSender},
};
use announce::announce;
use era::Eras;
use follow::{Decoded, follow};
use health::Health;
use imports::follow_imports;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, runtime::watcher};
use relisting::relisting;
use uids::Uids;

/// Sends every kind as a complete list, then every change, until the receiver is dropped. `scope` says where we are.
/// What is on the `board` becomes Kubernetes Events.
///
/// An API server that does not answer is no error: it is asked again, for ever, at growing intervals with jitter, and
/// the log says so.
///
/// # Errors
/// There is no usable configuration of how to reach an API server.
pub async fn run(
    locations: &Locations,
    scope: &Scope,
    board: &Board,
    events: EventSender,
) -> Result<(), KubernetesError> {
    let (client, server) = client(locations).await?;
    let (uids, eras) = (Uids::default(), Eras::default());
    let health = |kind| Health::new(kind, &server, events.reach());
    let services = async {
        let mut interner = Interner::default();
        let decode = |service: &Service| {
            let mut service = decode::service(service);
            interner.share_in_service(&mut service);
            Decoded::Object(Object::Service(service))
        };
        let api = Api::all(client.clone());
        let stream = relisting(api, watcher::Config::default(), &eras);
        follow(stream, decode, &mut health(ObjectKind::Service), &uids, &events).await
    };
    let slices = async {
        let mut interner = Interner::default();
        let decode = |slice: &EndpointSlice| {
            let mut slice = decode::slice(slice, &scope.cluster_name);
            slice.iter_mut().for_each(|slice| interner.share(slice));
            slice.map(Object::EndpointSlice).into()
        };
        let api = Api::all(client.clone());
        let stream = relisting(api, watcher::Config::default(), &eras);
        follow(stream, decode, &mut health(ObjectKind::EndpointSlice), &uids, &events).await
    };
    let node = async {
        let decode = |node: &Node| Decoded::Object(Object::Node(decode::node(node)));
        let stream = relisting(Api::all(client.clone()), only(&scope.node_name), &eras);
        follow(stream, decode, &mut health(ObjectKind::Node), &uids, &events).await
    };
    let settings = follow_settings(
        client.clone(),
        scope.settings.as_ref(),
        health(ObjectKind::ConfigMap),
        &uids,
        &eras,
        &events,
    );
    let imports = follow_imports(
        client.clone(),
        &scope.cluster_name,
        scope.discovery_interval,
        health(ObjectKind::ServiceImport),
        &uids,
        &eras,
        &events,
    );
    tokio::select! {
        _ = async { tokio::join!(services, slices, node, settings, imports) } => {}
        () = announce(client.clone(), board, &uids, &scope.node_name) => {}
        () = report::report(client.clone(), board, &uids, scope) => {}
        () = events.closed() => {}
    }
    Ok(())
}

async fn follow_settings(
    client: Client,
    name: Option<&NamespacedName>,
    mut health: Health,
    uids: &Uids,
    eras: &Eras,
    events: &EventSender,
) {
    let Some(name) = name else {
        // Nobody listens, or there is nothing more to tell.
        let _ = events.send(Event::Replaced(ObjectKind::ConfigMap, Vec::new())).await;
        return;
    };
    let decode = |object: &ConfigMap| Decoded::Object(Object::Settings(decode::settings(object)));
    let stream = relisting(Api::namespaced(client, &name.namespace), only(&name.name), eras);
    follow(stream, decode, &mut health, uids, events).await;
}

/// The one object of this name: more may not be ours to see, and would not be read.
fn only(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Says whether there is a usable configuration. Does not connect.
///
/// # Errors
/// As [`run`].
pub async fn check(locations: &Locations) -> Result<(), KubernetesError> {
    client(locations).await.map(drop)
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
