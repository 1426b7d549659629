//! `--source kubernetes`: Services and EndpointSlices of all namespaces, watched at an API server.
//!
//! Rights needed: get, list and watch on `services` and `endpointslices.discovery.k8s.io`. Objects become the
//! model's at once, so that what the model leaves out (managed fields, selectors, target references) is not kept.

mod connect;
mod follow;
mod health;

pub use connect::{KubernetesError, Locations};

use super::{Object, Scope, decode};
use crate::{model::ObjectKind, source::Event};
use follow::follow;
use health::Health;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::Api;
use tokio::sync::mpsc;

/// Sends both kinds as complete lists, then every change, until the receiver is dropped. `scope` says
/// where we are.
///
/// An API server that does not answer is no error: it is asked again, for ever, at growing intervals with jitter, and
/// the log says so.
///
/// # Errors
/// There is no usable configuration of how to reach an API server.
pub async fn run(
    locations: &Locations,
    scope: &Scope,
    events: mpsc::Sender<Event>,
) -> Result<(), KubernetesError> {
    let (client, server) = connect::client(locations).await?;
    let services = follow(
        Api::<Service>::all(client.clone()),
        |service| Some(Object::Service(decode::service(service))),
        Health::new(ObjectKind::Service, &server),
        &events,
    );
    let slices = follow(
        Api::<EndpointSlice>::all(client),
        |slice| decode::slice(slice, &scope.cluster_name).map(Object::EndpointSlice),
        Health::new(ObjectKind::EndpointSlice, &server),
        &events,
    );
    tokio::select! {
        ((), ()) = async { tokio::join!(services, slices) } => {}
        () = events.closed() => {}
    }
    Ok(())
}

/// Says whether there is a usable configuration. Does not connect.
///
/// # Errors
/// As [`run`].
pub async fn check(locations: &Locations) -> Result<(), KubernetesError> {
    connect::client(locations).await.map(drop)
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
