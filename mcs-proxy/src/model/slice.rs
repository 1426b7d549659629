use super::{Importer, NamespacedName, Problem, keyed::Named};
use mcs_proxy_ebpf::abi::Protocol;
use std::{fmt, net::IpAddr, sync::Arc};

/// An EndpointSlice of addresses (FQDN slices are not kept), local or imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub key: NamespacedName,
    /// Name of the Service it belongs to, in the same namespace: label `kubernetes.io/service-name`. Empty if it belongs
    /// to a ServiceImport alone.
    pub service: Arc<str>,
    /// Name of the ServiceImport it belongs to, in the same namespace: label `multicluster.kubernetes.io/service-name`.
    pub import: Option<Arc<str>>,
    pub importer: Importer,
    /// What its importer calls this cluster, if that is not `--cluster-name`.
    pub misnamed: Option<Box<str>>,
    pub source: SourceCluster,
    /// When it changed last, as far as its metadata tell: seconds since the epoch. For people; nothing acts on it.
    pub changed: Option<i64>,
    /// `null` in a placeholder of Karmada's: then empty.
    pub ports: Arc<[SlicePort]>,
    /// `null` in a placeholder of Karmada's: then empty.
    pub endpoints: Vec<Endpoint>,
    /// What the decoder found wrong with it. The [`Model`](super::Model) keeps them apart from the object.
    pub problems: Vec<Problem>,
}

impl Named for EndpointSlice {
    fn key(&self) -> &NamespacedName {
        &self.key
    }
}

/// The cluster whose pods a slice names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceCluster {
    Local,
    Remote(Arc<str>),
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

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// `null` is the empty name.
    pub name: Arc<str>,
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
    /// `None`: nothing is said of it. What names the same place shares it: there may be a hundred thousand endpoints, and
    /// has each its own names, they are most of what the daemon remembers.
    pub place: Option<Arc<Place>>,
}

impl Endpoint {
    /// Names an object of the *source* cluster. Never compare it with this node's unless the slice is local.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.place.as_ref()?.node_name.as_deref()
    }

    /// As [`Self::node_name`].
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.place.as_ref()?.zone.as_deref()
    }

    /// For whom its cluster's controller means it; `None`: it says nothing of that.
    #[must_use]
    pub fn hints(&self) -> Option<&Hints> {
        self.place.as_ref()?.hints.as_ref()
    }
}

/// Where an endpoint is, and for whom it is meant, in the words of the *source* cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub node_name: Option<String>,
    pub zone: Option<String>,
    pub hints: Option<Hints>,
}

/// `hints`: names of nodes and zones of the *source* cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    pub for_nodes: Vec<String>,
    pub for_zones: Vec<String>,
}
