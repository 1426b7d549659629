//! What does not answer, and what of it is left out: never all that a frontend has.

use super::{EndpointVerdict, Flags, FrontendKey, Probe, eligibility::Candidate};
use crate::model::{ClusterState, OnFailure, Settings, SourceCluster};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What [`Health`](crate::health::Health) has found out. It has an effect as long as settings and flags want it to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outages {
    /// Clusters that no new flow should go to, by name (this one's own included), each by one family: the ways there
    /// differ.
    pub clusters: BTreeSet<(Arc<str>, Family)>,
    /// Single endpoints, by their cluster's name.
    pub endpoints: BTreeMap<SocketAddr, Arc<str>>,
    /// Which frontend gives a flow to whom, to see whether it answers again.
    pub probes: BTreeMap<FrontendKey, Probe>,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

/// An endpoint of a frontend whose answers are of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub address: SocketAddr,
    /// Name of its cluster.
    pub cluster: Arc<str>,
    /// Whether it takes new flows now; if not, it could if others did not.
    pub in_slots: bool,
    /// Whether it is left out because it, or its cluster, does not answer.
    pub left_out: bool,
}

impl Family {
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl Outages {
    /// Whether nothing is to be left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { clusters, endpoints, probes: _ } = self;
        clusters.is_empty() && endpoints.is_empty()
    }

    /// Whether an endpoint's cluster is among them.
    pub(super) fn has(&self, source: &SourceCluster, address: IpAddr, own: &str) -> bool {
        let (name, family) = (name_of(source, own), Family::of(address));
        // There are few.
        self.clusters.iter().any(|(cluster, by)| **cluster == *name && *by == family)
    }

    /// Sets aside those in question that do not answer; `true` if there are any.
    pub(super) fn leave_out(
        &self,
        candidates: &mut [Candidate<'_>],
        settings: &Settings,
        flags: &Flags,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut any = false;
        for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
            let source = &candidate.slice.source;
            let name = name_of(source, &flags.cluster_name);
            let is_out = self.has(source, candidate.address.ip(), &flags.cluster_name);
            let cluster = self.endpoints.get(&candidate.address).filter(|_| flags.eject_unanswered);
            if is_out && drains_on_failure(settings, source, &flags.cluster_name) {
                candidate.verdict = EndpointVerdict::ClusterUnanswered;
            } else if cluster.is_some_and(|cluster| **cluster == *name) {
                candidate.verdict = EndpointVerdict::Unanswered;
            } else {
                continue;
            }
            any = true;
        }
        any
    }

    /// Whom this frontend probes, if that one is left out.
    pub(super) fn probe(&self, key: &FrontendKey, candidates: &[Candidate<'_>]) -> Option<Probe> {
        let probe = *self.probes.get(key)?;
        let is_target =
            |candidate: &Candidate<'_>| candidate.address == probe.address && is_left_out(candidate.verdict);
        candidates.iter().any(is_target).then_some(probe)
    }
}

/// The endpoints of a frontend whose answers are to be counted: all that take new flows or could, if anyone has asked
/// about one of them.
pub(super) fn watched(candidates: &[Candidate<'_>], settings: &Settings, flags: &Flags) -> Vec<Watched> {
    let own = &flags.cluster_name;
    let is_wanted = |candidate: &Candidate<'_>| drains_on_failure(settings, &candidate.slice.source, own);
    if !flags.eject_unanswered && (settings.clusters.is_empty() || !candidates.iter().any(is_wanted)) {
        return Vec::new();
    }
    // Candidates of a cluster come one after the other.
    let mut last: Option<Arc<str>> = None;
    let could = candidates.iter().filter(|candidate| could_take_flows(candidate.verdict));
    could
        .map(|candidate| {
            let name = name_of(&candidate.slice.source, own);
            let cluster = last.take().filter(|last| **last == *name).unwrap_or_else(|| Arc::from(name));
            last = Some(Arc::clone(&cluster));
            Watched {
                address: candidate.address,
                cluster,
                in_slots: candidate.verdict.takes_flows(),
                left_out: is_left_out(candidate.verdict),
            }
        })
        .collect()
}

const fn is_left_out(verdict: EndpointVerdict) -> bool {
    matches!(verdict, EndpointVerdict::ClusterUnanswered | EndpointVerdict::Unanswered)
}

const fn could_take_flows(verdict: EndpointVerdict) -> bool {
    match verdict {
        EndpointVerdict::Used
        | EndpointVerdict::UsedTerminating
        | EndpointVerdict::OtherTier
        | EndpointVerdict::LocalFirst
        | EndpointVerdict::ShareTooSmall
        | EndpointVerdict::ClusterUnanswered
        | EndpointVerdict::Unanswered => true,
        EndpointVerdict::NotReady
        | EndpointVerdict::Terminating
        | EndpointVerdict::Duplicate
        | EndpointVerdict::Rejected(_)
        | EndpointVerdict::InNoTier
        | EndpointVerdict::OtherNode
        | EndpointVerdict::NodeUnnamed
        | EndpointVerdict::OtherZone
        | EndpointVerdict::ClusterDrained
        | EndpointVerdict::ClusterDropped => false,
    }
}

/// As the settings name clusters, and as people read them.
pub(super) fn name_of<'a>(source: &'a SourceCluster, own: &'a str) -> &'a str {
    match source {
        SourceCluster::Local => own,
        SourceCluster::Remote(name) => name,
        SourceCluster::Unknown => "unknown",
    }
}

fn drains_on_failure(settings: &Settings, source: &SourceCluster, own: &str) -> bool {
    *source != SourceCluster::Unknown
        && settings.clusters.get(name_of(source, own)).is_some_and(|cluster| {
            cluster.on_failure == OnFailure::Drain && cluster.state == ClusterState::Active
        })
}
