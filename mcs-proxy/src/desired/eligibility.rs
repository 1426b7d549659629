use super::{EndpointVerdict, JudgedEndpoint};
use crate::model::{Endpoint, EndpointSlice, Refusal, ServicePort, SourceCluster};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// An endpoint of one port of a Service, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: SocketAddr,
    pub(super) slice: &'a EndpointSlice,
    endpoint: &'a Endpoint,
    pub(super) verdict: EndpointVerdict,
}

impl Candidate<'_> {
    /// Takes no new flows, but those it has may stay.
    pub(super) const fn keeps_flows(&self) -> bool {
        let kept = matches!(self.verdict, EndpointVerdict::NotReady | EndpointVerdict::Terminating);
        kept && self.endpoint.serving
    }

    pub(super) fn judged(&self) -> JudgedEndpoint {
        JudgedEndpoint {
            address: self.address,
            source: self.slice.source.clone(),
            slice: self.slice.key.name.clone(),
            verdict: self.verdict,
        }
    }
}

/// Gives every endpoint that the slices list for `port`, in the VIP's family, its verdict, in the slices' order.
///
/// Reads slices as kube-proxy does (`pkg/proxy/endpointslicecache.go`, `topology.go`): a Service's port finds its
/// targets by name and protocol, never by number, which is the slice's own; equal addresses count once; ready ones
/// take new flows, and where none is ready, those that still serve while they terminate. `refusal` says which addresses
/// count for nothing.
pub(super) fn judge<'a>(
    port: &ServicePort,
    vip: IpAddr,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    refusal: impl Fn(SocketAddr, &SourceCluster) -> Option<Refusal>,
) -> Vec<Candidate<'a>> {
    let mut candidates = list(port, vip, slices, refusal);
    set_aside_duplicates(&mut candidates);
    let counted = |candidate: &&Candidate<'_>| candidate.verdict == EndpointVerdict::Used;
    let any_ready = candidates.iter().filter(counted).any(|candidate| candidate.endpoint.ready);
    for candidate in &mut candidates {
        if candidate.verdict == EndpointVerdict::Used {
            candidate.verdict = readiness(candidate.endpoint, any_ready);
        }
    }
    candidates
}

/// Until it is judged further, what is not rejected counts as used.
fn list<'a>(
    port: &ServicePort,
    vip: IpAddr,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    refusal: impl Fn(SocketAddr, &SourceCluster) -> Option<Refusal>,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices {
        for target in &slice.ports {
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
                candidates.push(Candidate { address, slice, endpoint, verdict });
            }
        }
    }
    candidates
}

/// Of several with one address and port: one that does not terminate before one that does (imports lag behind), the
/// local one before an import (it is at the source), the first slice by name before the next.
fn set_aside_duplicates(candidates: &mut [Candidate<'_>]) {
    let mut first: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for i in 0..candidates.len() {
        let candidate = candidates[i];
        if matches!(candidate.verdict, EndpointVerdict::Rejected(_)) {
            continue;
        }
        let rank = |candidate: &Candidate<'_>| {
            (candidate.endpoint.terminating, candidate.slice.source != SourceCluster::Local)
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

const fn readiness(endpoint: &Endpoint, any_ready: bool) -> EndpointVerdict {
    match (endpoint.ready, endpoint.terminating) {
        // Ready and terminating at once: a Service with publishNotReadyAddresses.
        (true, _) => EndpointVerdict::Used,
        (false, true) if any_ready => EndpointVerdict::Terminating,
        (false, true) if endpoint.serving => EndpointVerdict::UsedTerminating,
        (false, _) => EndpointVerdict::NotReady,
    }
}

#[cfg(test)]
#[path = "eligibility_tests.rs"]
mod tests;
