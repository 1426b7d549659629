//! Decisions for tests, short to ask for.

use super::{
    Context, Flags, FrontendKey, Here,
    frontends::{Decision, decide},
    tiers::Standing,
};
use crate::model::{EndpointSlice, Service, Surroundings};
use mcs_proxy_ebpf::abi::Algorithm;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// We are node-1, in zone a of member2.
pub(super) fn flags() -> Flags {
    Flags {
        cluster_name: "member2".into(),
        default_algorithm: Algorithm::RoundRobin,
        all_services: false,
        tier_hold: Duration::from_secs(10),
        node_name: "node-1".into(),
    }
}

pub(super) fn decided<'a>(service: &Service, slices: &'a [EndpointSlice]) -> Decision<'a> {
    decided_with(service, slices, &flags(), &BTreeMap::new(), Instant::now())
}

pub(super) fn decided_with<'a>(
    service: &Service,
    slices: &'a [EndpointSlice],
    flags: &Flags,
    standings: &BTreeMap<FrontendKey, Standing>,
    now: Instant,
) -> Decision<'a> {
    let here = Here { node: &flags.node_name, zone: Some("a") };
    let surroundings = Surroundings::default();
    decide(service, slices.iter(), &Context { flags, here, surroundings: &surroundings, standings, now })
}

/// The endpoints of the Service's first frontend in the order of display, as `member1 10.10.0.6: used`.
pub(super) fn verdicts(service: &Service, slices: &[EndpointSlice]) -> Vec<String> {
    let decision = decided(service, slices);
    let candidates = decision.frontends.iter().take(1).flat_map(|(_, decided)| &decided.candidates);
    candidates
        .map(|candidate| {
            format!("{} {}: {}", candidate.slice.source, candidate.address.ip(), candidate.verdict.as_str())
        })
        .collect()
}
