use super::{Importer, NamespacedName, Problem};
use mcs_proxy_ebpf::abi::Protocol;
use std::{fmt, net::IpAddr};

/// An EndpointSlice of addresses (FQDN slices are not kept), local or imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub key: NamespacedName,
    /// Name of the Service it belongs to, in the same namespace: label `kubernetes.io/service-name`. Empty if it belongs
    /// to a ServiceImport alone.
    pub service: String,
    /// Name of the ServiceImport it belongs to, in the same namespace: label `multicluster.kubernetes.io/service-name`.
    pub import: Option<String>,
    pub importer: Importer,
    /// What its importer calls this cluster, if that is not `--cluster-name`.
    pub misnamed: Option<String>,
    pub source: SourceCluster,
    /// When it changed last, as far as its metadata tell: seconds since the epoch. For people; nothing acts on it.
    pub changed: Option<i64>,
    /// `null` in a placeholder of Karmada's: then empty.
    pub ports: Vec<SlicePort>,
    /// `null` in a placeholder of Karmada's: then empty.
    pub endpoints: Vec<Endpoint>,
    /// What the decoder found wrong with it. The [`Model`](super::Model) keeps them apart from the object.
    pub problems: Vec<Problem>,
}

/// The cluster whose pods a slice names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceCluster {
    Local,
    Remote(String),
    /// Imported, but the importer does not say from where.
    Unknown,
}

impl fmt::Display for SourceCluster {
    /// As `services` prints it; the caller puts this cluster's own name for `Local`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Local => "local",
            Self::Remote(name) => name,
            Self::Unknown => "unknown",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// `null` is the empty name.
    pub name: String,
    /// `null` is TCP.
    pub protocol: Protocol,
    /// The target's port, resolved.
    pub port: u16,
}

/// One endpoint: the first of its `addresses`, as kube-proxy reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    /// `null` is true.
    pub ready: bool,
    /// `null` is true.
    pub serving: bool,
    /// `null` is false.
    pub terminating: bool,
    /// Names an object of the *source* cluster. Never compare it with this node's unless the slice is local.
    pub node_name: Option<String>,
    /// As `node_name`.
    pub zone: Option<String>,
    /// For whom its cluster's controller means it; `None`: it says nothing of that.
    pub hints: Option<Box<Hints>>,
}

/// `hints`: names of nodes and zones of the *source* cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub for_nodes: Vec<String>,
    pub for_zones: Vec<String>,
}
