//! Services, EndpointSlices and what goes with them, as mcs-proxy understands them: decoded, typed, without I/O.

mod algorithm;
mod cluster;
mod clusters;
mod importer;
mod imports;
mod interner;
mod keyed;
mod ledger;
mod misnaming;
mod node;
mod problem;
mod quota;
mod service;
mod service_import;
mod settings;
mod slice;
mod slices;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod tiers;
mod validation;

pub use algorithm::{UnknownAlgorithm, algorithm_name, parse_algorithm};
pub use cluster::{check_cluster_name, check_imported_name};
pub use clusters::Clusters;
pub use importer::{Importer, Origin, SliceMetadata, is_passed_over, origin, own_name_told};
pub use interner::Interner;
pub use ledger::{Ledger, ProblemChanges};
pub use node::Node;
pub use problem::{ObjectKind, ObjectRef, Problem, ProblemNews, ProblemTracker};
pub use quota::Limits;
pub use service::{Malformed, OptIn, Service, ServicePort, SessionAffinity, TrafficPolicy};
pub use service_import::{IMPORT_PREFIX, ServiceImport, import_key};
pub use settings::{
    ClusterSettings, ClusterState, MODE_KEY, Mode, NodeMode, OnFailure, Settings, SettingsObject,
    UNINSTALL_ANNOTATION, Uninstall, Zones,
};
pub use slice::{Endpoint, EndpointSlice, Hints, Place, SlicePort, SourceCluster};
pub use store::Model;
pub use tiers::{ClusterSelector, LARGEST_SHARE, Member, MinReady, PreferenceError, Tier, Tiers};
pub use validation::{Refusal, Surroundings, rejection};

use std::{fmt, sync::Arc};

/// Namespace and name, which is how everything in a cluster is told apart. Its clones share their text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl NamespacedName {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}
