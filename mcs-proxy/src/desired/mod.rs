//! What the maps should hold: a pure function of the model and the node.
//!
//! [`frontends_of`] is that function for one Service; the [`Resolver`] keeps its results for all of them, settles who
//! gets a VIP and port that two Services claim, and yields only what changed.

mod eligibility;
mod frontends;
#[cfg(test)]
mod karmada_tests;
mod maglev;
mod opt_in;
mod resolver;
mod slots;

pub use frontends::frontends_of;
pub use opt_in::is_ours;
pub use resolver::{Changes, Resolver};

use crate::model::{NamespacedName, SourceCluster};
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Every frontend that should exist, by what a client calls.
pub type Desired = BTreeMap<FrontendKey, Frontend>;

/// What the command line says for all Services of this daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--cluster-name`: this cluster's.
    pub cluster_name: String,
    /// `--node-name`: this node's.
    pub node_name: String,
    /// `--default-algorithm`: where a Service names none.
    pub default_algorithm: Algorithm,
    /// `--all-services`: whatever has a ClusterIP is ours, unless it says otherwise.
    pub all_services: bool,
}

/// What a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(formatter, "{protocol} {}", SocketAddr::new(self.vip, self.port))
    }
}

/// One port of one Service on one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub service: NamespacedName,
    pub port_name: String,
    pub algorithm: Algorithm,
    /// ClientIP affinity's timeout; 0: no affinity.
    pub affinity_seconds: u32,
    /// Where new flows go, in the order of the wheel; an address may have several slots.
    pub slots: Vec<SocketAddr>,
    /// Not in the slots, but flows that are there may stay: serving, yet terminating or not preferred.
    pub serving: Vec<SocketAddr>,
    /// Every endpoint that the Service's slices list for this port, with what was decided and why.
    pub endpoints: Vec<JudgedEndpoint>,
}

impl Frontend {
    /// How many endpoints take new flows.
    #[must_use]
    pub fn used(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.verdict.takes_flows()).count()
    }
}

/// An endpoint and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedEndpoint {
    pub address: SocketAddr,
    pub source: SourceCluster,
    /// Name of the slice that lists it.
    pub slice: String,
    pub verdict: EndpointVerdict,
}

/// Whether an endpoint takes new flows, and if not, why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointVerdict {
    /// Takes new flows.
    Used,
    /// No endpoint is ready, and this one serves while it terminates: takes new flows.
    UsedTerminating,
    /// `conditions.ready` is false.
    NotReady,
    /// `conditions.terminating` is true, and others are ready.
    Terminating,
    /// Another slice lists the same address and port, and that one counts.
    Duplicate,
    /// Not an address that a pod can have (loopback, link-local, multicast, unspecified …), or port 0.
    Rejected,
}

impl EndpointVerdict {
    #[must_use]
    pub const fn takes_flows(self) -> bool {
        matches!(self, Self::Used | Self::UsedTerminating)
    }

    /// In the words that `mcs-proxy services` prints.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::UsedTerminating => "used (terminating)",
            Self::NotReady => "not ready",
            Self::Terminating => "terminating",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected address",
        }
    }
}
