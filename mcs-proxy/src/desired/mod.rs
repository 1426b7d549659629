//! What the maps should hold: a pure function of the model and the node.
//!
//! The [`Resolver`] decides for each Service, keeps the results, settles who gets a VIP and port that two Services claim,
//! and yields only what changed. What became of every endpoint, and why, it says when asked ([`Resolver::judged`]):
//! kept for all of them it would be most of the daemon's memory.

mod eligibility;
mod frontends;
#[cfg(test)]
mod karmada_tests;
mod locality;
mod maglev;
mod opt_in;
mod outages;
#[cfg(test)]
mod outages_tests;
mod resolver;
mod slots;
#[cfg(test)]
mod switches_tests;
#[cfg(test)]
mod testing;
mod tiers;
mod wheel;

pub use opt_in::is_ours;
pub use outages::{Family, Outages, Watched};
pub use resolver::{Changes, Resolver};

use crate::model::{Clusters, Mode, NamespacedName, Refusal, Settings, SourceCluster, Surroundings};
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

/// Every frontend that should exist, by what a client calls.
pub type Desired = BTreeMap<FrontendKey, Arc<Frontend>>;

/// What the command line says for all Services of this daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--cluster-name`: this cluster's.
    pub cluster_name: String,
    /// `--node-name`: this node's, as endpoints of this cluster name it.
    pub node_name: String,
    /// `--default-algorithm`: where a Service names none.
    pub default_algorithm: Algorithm,
    /// `--all-services`: whatever has a ClusterIP is ours, unless it says otherwise.
    pub all_services: bool,
    /// `--tier-hold`: for how long a tier must have had enough endpoints before new flows return to it.
    pub tier_hold: Duration,
    /// `--eject-unanswered`: single endpoints that do not answer are left out.
    pub eject_unanswered: bool,
}

/// What a decision depends on beside the Service and its slices.
#[derive(Clone, Copy, Debug)]
struct Context<'a> {
    flags: &'a Flags,
    here: Here<'a>,
    surroundings: &'a Surroundings,
    settings: &'a Settings,
    /// The other ones.
    clusters: &'a Clusters,
    /// On this node.
    mode: Mode,
    outages: &'a Outages,
    standings: &'a BTreeMap<FrontendKey, tiers::Standing>,
    now: Instant,
}

/// Where this daemon runs, in this cluster's names.
#[derive(Clone, Copy, Debug)]
struct Here<'a> {
    node: &'a str,
    zone: Option<&'a str>,
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
    pub port_name: Arc<str>,
    pub algorithm: Algorithm,
    /// ClientIP affinity's timeout; 0: no affinity.
    pub affinity_seconds: u32,
    /// Sockets that call it are left to the packet path.
    pub packets_only: bool,
    /// Whether no other Service has the VIP, so that a port of it which no frontend has is nobody's.
    pub owns_vip: bool,
    /// Where new flows go, in the order of the wheel; an address may have several slots. Shared with
    /// [`Table`](crate::dataplane::table::Table), as it is the most of what is remembered of a frontend.
    pub slots: Arc<[SocketAddr]>,
    /// Who is given one new flow beside the slots, to see whether it answers by now.
    pub probe: Option<Probe>,
    /// Not in the slots, but flows that are there may stay: serving, yet terminating or not preferred.
    pub serving: Vec<SocketAddr>,
    /// Those of clusters that are dropped: flows that are there end.
    pub dropped: Vec<SocketAddr>,
    /// How many endpoints take new flows.
    pub used: usize,
    /// Differs when what [`Resolver::judged`] says of its endpoints does.
    pub fingerprint: u64,
    /// Endpoints whose answers are of interest; empty if nobody's are.
    pub watched: Vec<Watched>,
}

/// One new flow to an endpoint that takes no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub address: SocketAddr,
    /// From 1 on: another number is another flow.
    pub number: u64,
}

/// A frontend's endpoints, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Every endpoint that the Service's slices list for this port and family, in the order of display.
    pub endpoints: Vec<JudgedEndpoint>,
    /// Which tier takes the new flows, counted from 0; `None`: all of them, or the Service has none.
    pub active_tier: Option<usize>,
}

/// An endpoint and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedEndpoint {
    pub address: SocketAddr,
    pub source: SourceCluster,
    /// Name of the slice that lists it.
    pub slice: Arc<str>,
    pub verdict: EndpointVerdict,
    /// The tier of its cluster, counted from 0; `None` if that is in none or the Service has none.
    pub tier: Option<usize>,
    /// Its slots of one turn: over those of all endpoints, its share of new flows. With Maglev, before the table is
    /// made of them.
    pub slots: usize,
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
    /// No endpoint of that cluster may have this address or port.
    Rejected(Refusal),
    /// `mcs-proxy.io/clusters` has tiers, and its cluster in none of them.
    InNoTier,
    /// Another tier takes the new flows.
    OtherTier,
    /// `internalTrafficPolicy: Local` or hints for nodes, and it is not this node's.
    OtherNode,
    /// `internalTrafficPolicy: Local`, and nobody said which node this is.
    NodeUnnamed,
    /// Hints for zones, and it is not this zone's.
    OtherZone,
    /// An import, and this cluster's hints give this node endpoints of its own.
    LocalFirst,
    /// Its cluster's share of the turn has fewer slots than the cluster has endpoints.
    ShareTooSmall,
    /// The settings drain its cluster.
    ClusterDrained,
    /// The settings drop its cluster.
    ClusterDropped,
    /// Its cluster does not answer, and the settings drain such (`on-failure: drain`).
    ClusterUnanswered,
    /// It does not answer (`--eject-unanswered`).
    Unanswered,
}

impl EndpointVerdict {
    #[must_use]
    pub const fn takes_flows(self) -> bool {
        matches!(self, Self::Used | Self::UsedTerminating)
    }

    /// Whether it is only not chosen, or about to go: flows that are there may stay.
    #[must_use]
    pub const fn lets_flows_finish(self) -> bool {
        match self {
            Self::NotReady
            | Self::Terminating
            | Self::InNoTier
            | Self::OtherTier
            | Self::OtherNode
            | Self::NodeUnnamed
            | Self::OtherZone
            | Self::LocalFirst
            | Self::ShareTooSmall
            | Self::ClusterDrained
            | Self::ClusterUnanswered
            | Self::Unanswered => true,
            Self::Used
            | Self::UsedTerminating
            | Self::Duplicate
            | Self::Rejected(_)
            | Self::ClusterDropped => false,
        }
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
            Self::Rejected(_) => "rejected address",
            Self::InNoTier => "in no tier",
            Self::OtherTier => "other tier",
            Self::OtherNode => "other node",
            Self::NodeUnnamed => "this node unnamed",
            Self::OtherZone => "other zone",
            Self::LocalFirst => "local hints first",
            Self::ShareTooSmall => "share below one slot",
            Self::ClusterDrained => "cluster drained",
            Self::ClusterDropped => "cluster dropped",
            Self::ClusterUnanswered => "cluster unanswered",
            Self::Unanswered => "unanswered",
        }
    }
}
