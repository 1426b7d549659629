//! Where objects come from. Every source gives the same events.

mod channel;
pub mod decode;
pub mod directory;
pub mod kubernetes;
mod scope;
mod spec;

pub use channel::{EventSender, NobodyListens, Reach, Told, Trouble, Troubles, channel};
pub use scope::Scope;
#[cfg(test)]
pub(crate) use scope::testing as testing_scope;
pub use spec::{SourceSpec, UnknownSource};

use crate::{
    model::{
        EndpointSlice, NamespacedName, Node, ObjectKind, ObjectRef, Problem, Service, ServiceImport,
        SettingsObject,
    },
    observe::events::Board,
};

/// Sends the objects of `source` that are in `scope` until the receiver is dropped. `locations` are for the API
/// server's kubeconfig. What is on the `board` the API server is told of; a directory has nobody to tell.
///
/// # Errors
/// Only at the start: the directory or the kubeconfig is of no use. Later troubles are logged or told as
/// [`Event::Problem`], and outlasted.
pub async fn run(
    source: &SourceSpec,
    scope: &Scope,
    locations: &kubernetes::Locations,
    board: &Board,
    events: EventSender,
) -> Result<(), SourceError> {
    match source {
        SourceSpec::Kubernetes => kubernetes::run(locations, scope, board, events).await?,
        SourceSpec::Directory(path) => directory::run(path, scope, events).await?,
    }
    Ok(())
}

/// Says what stands in the way of [`run`], without starting it.
///
/// # Errors
/// The directory or the kubeconfig is of no use.
pub async fn check(source: &SourceSpec, locations: &kubernetes::Locations) -> Result<(), SourceError> {
    match source {
        SourceSpec::Kubernetes => kubernetes::check(locations).await?,
        SourceSpec::Directory(path) => directory::check(path).await?,
    }
    Ok(())
}

/// Why a source cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Directory(#[from] directory::DirectoryError),
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::KubernetesError),
}

/// What every source tells of, each with a complete list at first, if an empty one.
pub const KINDS: [ObjectKind; 5] = [
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::ServiceImport,
    ObjectKind::Node,
    ObjectKind::ConfigMap,
];

/// What a source tells the daemon's writer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object as it is now, new or changed.
    Applied(Object),
    /// The object is gone.
    Deleted(ObjectKind, NamespacedName),
    /// A complete list of one kind: whatever is not in it is gone. The first one of a kind says that it is synced.
    Replaced(ObjectKind, Vec<Object>),
    /// An object or a file could not be read at all. What was last good stays. (What is wrong with an object that
    /// could be read travels in its `problems`.)
    Problem(Problem),
    /// No [`Event::Problem`] told of this object or file holds any longer.
    Mended(ObjectRef),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    ServiceImport(ServiceImport),
    Node(Node),
    Settings(SettingsObject),
}

impl Object {
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::ServiceImport(_) => ObjectKind::ServiceImport,
            Self::Node(_) => ObjectKind::Node,
            Self::Settings(_) => ObjectKind::ConfigMap,
        }
    }

    #[must_use]
    pub const fn key(&self) -> &NamespacedName {
        match self {
            Self::Service(service) => &service.key,
            Self::EndpointSlice(slice) => &slice.key,
            Self::ServiceImport(import) => &import.key,
            Self::Node(node) => &node.key,
            Self::Settings(settings) => &settings.key,
        }
    }

    #[must_use]
    pub const fn problems(&self) -> &Vec<Problem> {
        match self {
            Self::Service(service) => &service.problems,
            Self::EndpointSlice(slice) => &slice.problems,
            Self::ServiceImport(import) => &import.problems,
            Self::Node(node) => &node.problems,
            Self::Settings(settings) => &settings.problems,
        }
    }

    pub(crate) const fn problems_mut(&mut self) -> &mut Vec<Problem> {
        match self {
            Self::Service(service) => &mut service.problems,
            Self::EndpointSlice(slice) => &mut slice.problems,
            Self::ServiceImport(import) => &mut import.problems,
            Self::Node(node) => &mut node.problems,
            Self::Settings(settings) => &mut settings.problems,
        }
    }
}
