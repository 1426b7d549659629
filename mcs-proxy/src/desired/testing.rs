//! Decisions for tests, short to ask for.

use super::Outages;
use super::{
    Context, Flags, FrontendKey, Here,
    frontends::{Decision, decide},
    tiers::Standing,
};
use crate::model::{Clusters, EndpointSlice, Service, Settings, Surroundings};
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
        eject_unanswered: false,
    }
}

pub(super) fn decided<'a>(service: &Service, slices: &'a [EndpointSlice]) -> Decision<'a> {
    decided_with(service, slices, &flags(), &BTreeMap::new(), Instant::now())
}

pub(super) fn decided_by<'a>(
    service: &Service,
    slices: &'a [EndpointSlice],
    settings: &Settings,
) -> Decision<'a> {
    decided_without(service, slices, settings, &flags(), &Outages::default())
}

/// Without what does not answer.
pub(super) fn decided_without<'a>(
    service: &Service,
    slices: &'a [EndpointSlice],
    settings: &Settings,
    flags: &Flags,
    outages: &Outages,
) -> Decision<'a> {
    let surroundings = Surroundings::default();
    let here = Here { node: &flags.node_name, zone: Some("a") };
    let (standings, now) = (&BTreeMap::new(), Instant::now());
    let mode = settings.mode;
    let clusters = &clusters(slices);
    let context = Context {
        flags,
        here,
        surroundings: &surroundings,
        settings,
        clusters,
        mode,
        outages,
        standings,
        now,
    };
    decide(service, slices.iter(), &context)
}

fn clusters(slices: &[EndpointSlice]) -> Clusters {
    let mut clusters = Clusters::default();
    for slice in slices {
        clusters.exchange(None, Some(&slice.source));
    }
    clusters
}

pub(super) fn decided_with<'a>(
    service: &Service,
    slices: &'a [EndpointSlice],
    flags: &Flags,
    standings: &BTreeMap<FrontendKey, Standing>,
    now: Instant,
) -> Decision<'a> {
    let here = Here { node: &flags.node_name, zone: Some("a") };
    let (surroundings, settings) = (&Surroundings::default(), &Settings::default());
    let outages = &Outages::default();
    decide(
        service,
        slices.iter(),
        &Context {
            flags,
            here,
            surroundings,
            settings,
            clusters: &clusters(slices),
            mode: settings.mode,
            outages,
            standings,
            now,
        },
    )
}

/// The endpoints of the Service's first frontend in the order of display, as `member1 10.10.0.6: used`.
pub(super) fn verdicts(service: &Service, slices: &[EndpointSlice]) -> Vec<String> {
    told(&decided(service, slices))
}

/// The same under these settings.
pub(super) fn verdicts_by(service: &Service, slices: &[EndpointSlice], settings: &Settings) -> Vec<String> {
    told(&decided_by(service, slices, settings))
}

pub(super) fn told(decision: &Decision<'_>) -> Vec<String> {
    let candidates = decision.frontends.iter().take(1).flat_map(|(_, decided)| &decided.candidates);
    candidates
        .map(|candidate| {
            format!("{} {}: {}", candidate.slice.source, candidate.address.ip(), candidate.verdict.as_str())
        })
        .collect()
}
