use crate::model::{NamespacedName, ObjectKind};
use std::time::Duration;

/// Where we are, and so which of a cluster's objects concern us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `--cluster-name`: this cluster's.
    pub cluster_name: String,
    /// `--node-name`: this node's, the only Node that is read.
    pub node_name: String,
    /// `--settings`: the only ConfigMap that is read.
    pub settings: Option<NamespacedName>,
    /// `--discovery-interval`: how often an API server is asked whether it has ServiceImports.
    pub discovery_interval: Duration,
}

impl Scope {
    /// Whether the object of this kind and name is read at all.
    #[must_use]
    pub fn concerns(&self, kind: ObjectKind, key: &NamespacedName) -> bool {
        match kind {
            ObjectKind::Service
            | ObjectKind::EndpointSlice
            | ObjectKind::ServiceImport
            | ObjectKind::File => true,
            ObjectKind::Node => *key.name == *self.node_name,
            ObjectKind::ConfigMap => self.settings.as_ref() == Some(key),
        }
    }
}

#[cfg(test)]
pub(crate) fn testing() -> Scope {
    Scope {
        cluster_name: "member2".into(),
        node_name: "member2-node-1".into(),
        settings: Some(NamespacedName::new("mcs-proxy", "settings")),
        discovery_interval: Duration::from_secs(30),
    }
}
