//! Which endpoints may take new flows: what slices list, read as kube-proxy reads it.

use super::{EndpointVerdict, JudgedEndpoint};
use crate::model::{ClusterState, Endpoint, EndpointSlice, Refusal, ServicePort, Settings, SourceCluster};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// An endpoint of one port of a Service, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: SocketAddr,
    pub(super) slice: &'a EndpointSlice,
    pub(super) endpoint: &'a Endpoint,
    pub(super) verdict: EndpointVerdict,
    /// Where in the Service's tiers its cluster stands, if it has tiers and they have its cluster.
    pub(super) place: Option<Place>,
    /// Slots of the turn.
    pub(super) slots: usize,
}

/// A member of a tier, both counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) tier: usize,
    pub(super) member: usize,
}

impl Candidate<'_> {
    /// Nothing speaks against it so far.
    pub(super) fn is_in_question(&self) -> bool {
        self.verdict == EndpointVerdict::Used
    }

    /// Takes no new flows, but those it has may stay.
    pub(super) const fn keeps_flows(&self) -> bool {
        self.verdict.lets_flows_finish() && (self.endpoint.ready || self.endpoint.serving)
    }

    pub(super) fn is_local(&self) -> bool {
        self.slice.source == SourceCluster::Local
    }

    pub(super) fn judged(&self) -> JudgedEndpoint {
        JudgedEndpoint {
            address: self.address,
            source: self.slice.source.clone(),
            slice: self.slice.key.name.clone(),
            verdict: self.verdict,
            tier: self.place.map(|place| place.tier),
            slots: self.slots,
        }
    }
}

/// Every endpoint that the slices list for `port` in the VIP's family, in the slices' order. Those of impossible
/// addresses and duplicates are judged; nothing speaks against the others yet.
///
/// Reads slices as kube-proxy does (`pkg/proxy/endpointslicecache.go`): a Service's port finds its targets by name and
/// protocol, never by number, which is the slice's own; equal addresses count once. `refusal` says which addresses
/// count for nothing, `settings` which cluster an address is declared to be of.
pub(super) fn list<'a>(
    port: &ServicePort,
    vip: IpAddr,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    refusal: impl Fn(SocketAddr, &SourceCluster) -> Option<Refusal>,
    settings: &Settings,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices {
        for target in slice.ports.iter() {
            if target.name != port.name || target.protocol != port.protocol {
                continue;
            }
            for endpoint in &slice.endpoints {
                if endpoint.address.is_ipv4() != vip.is_ipv4() {
                    continue;
                }
                let address = SocketAddr::new(endpoint.address, target.port);
                let refused = refusal(address, &slice.source).map(EndpointVerdict::Rejected);
                let verdict = refused.unwrap_or(EndpointVerdict::Used);
                candidates.push(Candidate { address, slice, endpoint, verdict, place: None, slots: 0 });
            }
        }
    }
    set_aside_duplicates(&mut candidates, settings);
    candidates
}

/// Of several with one address and port: one that does not terminate before one that does (imports lag behind, and an
/// address may have passed to another pod), the local one before an import (it is at the source), that of the cluster whose
/// `cidrs` have the address before those of clusters that declare none (whoever writes slices may name any address, under any
/// name), the first slice by name before the next.
fn set_aside_duplicates(candidates: &mut [Candidate<'_>], settings: &Settings) {
    let mut first: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for i in 0..candidates.len() {
        let candidate = candidates[i];
        if matches!(candidate.verdict, EndpointVerdict::Rejected(_)) {
            continue;
        }
        let declared = |candidate: &Candidate<'_>| match &candidate.slice.source {
            SourceCluster::Remote(name) => settings.clusters.get(&**name).is_some_and(|cluster| {
                cluster.cidrs.iter().any(|range| range.contains(&candidate.address.ip()))
            }),
            SourceCluster::Local | SourceCluster::Unknown => false,
        };
        let rank = |candidate: &Candidate<'_>| {
            (candidate.endpoint.terminating, !candidate.is_local(), !declared(candidate))
        };
        let loser = match first.get(&candidate.address) {
            Some(&other) if rank(&candidates[other]) <= rank(&candidate) => i,
            Some(_) | None => match first.insert(candidate.address, i) {
                Some(other) => other,
                None => continue,
            },
        };
        candidates[loser].verdict = EndpointVerdict::Duplicate;
    }
}

/// Sets aside the endpoints of clusters that the settings drain or drop. This cluster is found by its name.
pub(super) fn leave_out_clusters(candidates: &mut [Candidate<'_>], settings: &Settings, own_cluster: &str) {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
        let name = match &candidate.slice.source {
            SourceCluster::Local => own_cluster,
            SourceCluster::Remote(name) => name,
            SourceCluster::Unknown => continue,
        };
        candidate.verdict = match settings.clusters.get(name).map(|cluster| cluster.state) {
            Some(ClusterState::Drain) => EndpointVerdict::ClusterDrained,
            Some(ClusterState::Drop) => EndpointVerdict::ClusterDropped,
            Some(ClusterState::Active) | None => continue,
        };
    }
}

/// Of those in question: ready ones take new flows, and where none is ready, those that still serve while they
/// terminate (`pkg/proxy/topology.go`, KEP-1669).
pub(super) fn judge_readiness(candidates: &mut [Candidate<'_>]) {
    let any_ready = candidates.iter().any(|candidate| candidate.is_in_question() && candidate.endpoint.ready);
    for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
        let endpoint = candidate.endpoint;
        candidate.verdict = match (endpoint.ready, endpoint.terminating) {
            // Ready and terminating at once: a Service with publishNotReadyAddresses.
            (true, _) => EndpointVerdict::Used,
            (false, true) if any_ready => EndpointVerdict::Terminating,
            (false, true) if endpoint.serving => EndpointVerdict::UsedTerminating,
            (false, _) => EndpointVerdict::NotReady,
        };
    }
}

#[cfg(test)]
#[path = "eligibility_tests.rs"]
mod tests;
