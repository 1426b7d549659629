use super::{NamespacedName, Problem};
use std::net::IpAddr;

/// The node this daemon runs on, as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The namespace is empty, as nodes have none.
    pub key: NamespacedName,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// `status.addresses` of the types InternalIP and ExternalIP, sorted.
    pub addresses: Vec<IpAddr>,
    /// What the decoder found wrong with it. The [`Model`](super::Model) keeps them apart from the object.
    pub problems: Vec<Problem>,
}

impl Node {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key.name
    }
}
