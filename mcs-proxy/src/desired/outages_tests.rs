//! What does not answer is left out where others can stand in for it.

use super::{
    Family, Flags, Outages, Probe,
    testing::{decided_without, flags, told},
};
use crate::model::{
    ClusterSettings, ClusterState, EndpointSlice, OnFailure, Service, Settings, Tiers, TrafficPolicy,
    testing::{service, slice},
};
use mcs_proxy_ebpf::abi::Protocol;
use std::{net::SocketAddr, sync::Arc};

fn settings(cluster: &str, state: ClusterState, on_failure: OnFailure) -> Settings {
    let settings = ClusterSettings { state, on_failure, ..ClusterSettings::default() };
    Settings { clusters: [(cluster.to_owned(), settings)].into(), ..Settings::default() }
}

fn failing(cluster: &str) -> Outages {
    Outages { clusters: [(Arc::from(cluster), Family::V4)].into(), ..Outages::default() }
}

fn slices() -> [EndpointSlice; 2] {
    [
        slice("serve-a", "serve", "local", &["10.12.0.6"]),
        slice("serve-b", "serve", "member1", &["10.10.0.6", "10.10.0.7"]),
    ]
}

const BOTH: [&str; 3] = ["local 10.12.0.6: used", "member1 10.10.0.6: used", "member1 10.10.0.7: used"];

#[test]
fn a_cluster_that_does_not_answer_is_left_out_if_the_settings_say_so() {
    let out = [
        "local 10.12.0.6: used",
        "member1 10.10.0.6: cluster unanswered",
        "member1 10.10.0.7: cluster unanswered",
    ];
    for (on, state, on_failure, outages, expected) in [
        ("member1", ClusterState::Active, OnFailure::Drain, failing("member1"), out),
        ("member1", ClusterState::Active, OnFailure::Keep, failing("member1"), BOTH),
        ("member3", ClusterState::Active, OnFailure::Drain, failing("member1"), BOTH),
        ("member1", ClusterState::Active, OnFailure::Drain, Outages::default(), BOTH),
        (
            "member1",
            ClusterState::Active,
            OnFailure::Drain,
            Outages { clusters: [(Arc::from("member1"), Family::V6)].into(), ..Outages::default() },
            BOTH,
        ),
    ] {
        let (slices, serve) = (slices(), service("serve", "10.13.0.1"));
        let settings = settings(on, state, on_failure);
        let decision = decided_without(&serve, &slices, &settings, &flags(), &outages);
        assert_eq!(told(&decision), expected, "{settings:?} {outages:?}");
        let frontend = &decision.frontends[0].1.frontend;
        let left_out = 3 - frontend.slots.len();
        assert_eq!(frontend.serving.len(), left_out, "its flows go on");
    }
}

#[test]
fn this_cluster_is_found_by_its_name() {
    let (slices, serve) = (slices(), service("serve", "10.13.0.1"));
    let settings = settings("member2", ClusterState::Active, OnFailure::Drain);
    let decision = decided_without(&serve, &slices, &settings, &flags(), &failing("member2"));
    assert_eq!(
        told(&decision),
        ["local 10.12.0.6: cluster unanswered", "member1 10.10.0.6: used", "member1 10.10.0.7: used"]
    );
}

#[test]
fn where_nothing_else_is_it_stays() {
    let settings = settings("member1", ClusterState::Active, OnFailure::Drain);
    let told_of = |service: &Service, slices: &[EndpointSlice]| {
        told(&decided_without(service, slices, &settings, &flags(), &failing("member1")))
    };
    let serve = service("serve", "10.13.0.1");
    assert_eq!(told_of(&serve, &slices()[1..]), BOTH[1..]);
    // Another cluster, but in no tier; not ready; or on another node, where only this one counts.
    let named = Service { clusters: Some(Tiers::parse("member1").unwrap()), ..serve.clone() };
    assert_eq!(
        told_of(&named, &slices()),
        ["local 10.12.0.6: in no tier", "member1 10.10.0.6: used", "member1 10.10.0.7: used"]
    );
    let mut unready = slices();
    (unready[0].endpoints[0].ready, unready[0].endpoints[0].serving) = (false, false);
    assert_eq!(
        told_of(&serve, &unready),
        ["local 10.12.0.6: not ready", "member1 10.10.0.6: used", "member1 10.10.0.7: used"]
    );
    let local = Service { internal_traffic_policy: TrafficPolicy::Local, ..serve };
    let nodes =
        ["local 10.12.0.6: other node", "member1 10.10.0.6: other node", "member1 10.10.0.7: other node"];
    assert_eq!(told_of(&local, &slices()), nodes);
}

#[test]
fn a_tier_that_does_not_answer_spills_over() {
    let tiers = Tiers::parse("member1,local").unwrap();
    let serve = Service { clusters: Some(tiers), ..service("serve", "10.13.0.1") };
    let settings = settings("member1", ClusterState::Active, OnFailure::Drain);
    let slices = slices();
    let decide = |outages: &Outages| told(&decided_without(&serve, &slices, &settings, &flags(), outages));
    assert_eq!(
        decide(&Outages::default()),
        ["local 10.12.0.6: other tier", "member1 10.10.0.6: used", "member1 10.10.0.7: used"]
    );
    assert_eq!(decide(&failing("member1"))[0], "local 10.12.0.6: used");
}

#[test]
fn an_endpoint_that_does_not_answer_is_left_out_by_the_flag_alone() {
    let address: SocketAddr = "10.10.0.7:8080".parse().unwrap();
    let outages = Outages { endpoints: [(address, Arc::from("member1"))].into(), ..Outages::default() };
    let (slices, serve, settings) = (slices(), service("serve", "10.13.0.1"), Settings::default());
    for (eject_unanswered, last) in [(true, "member1 10.10.0.7: unanswered"), (false, BOTH[2])] {
        let flags = Flags { eject_unanswered, ..flags() };
        let decision = decided_without(&serve, &slices, &settings, &flags, &outages);
        assert_eq!(told(&decision), [BOTH[0], BOTH[1], last]);
        assert_eq!(decision.frontends[0].1.frontend.watched.len(), if eject_unanswered { 3 } else { 0 });
    }
}

#[test]
fn answers_are_watched_where_somebody_asked_and_only_of_tcp() {
    let (slices, mut serve) = (slices(), service("serve", "10.13.0.1"));
    let drains = settings("member1", ClusterState::Active, OnFailure::Drain);
    let watched = |serve: &Service, settings: &Settings, outages: &Outages| {
        let decision = decided_without(serve, &slices, settings, &flags(), outages);
        let watched = &decision.frontends[0].1.frontend.watched;
        watched.iter().map(|it| (it.cluster.to_string(), it.in_slots, it.left_out)).collect::<Vec<_>>()
    };
    let row = |cluster: &str, in_slots, left_out| (cluster.to_owned(), in_slots, left_out);
    assert_eq!(watched(&serve, &Settings::default(), &Outages::default()), []);
    assert_eq!(
        watched(&serve, &settings("member1", ClusterState::Drain, OnFailure::Drain), &Outages::default()),
        []
    );
    assert_eq!(
        watched(&serve, &drains, &failing("member1")),
        [row("member2", true, false), row("member1", false, true), row("member1", false, true)]
    );
    serve.ports[0].protocol = Protocol::Udp;
    assert_eq!(watched(&serve, &drains, &failing("member1")), []);
}

#[test]
fn only_who_is_left_out_is_probed() {
    let (slices, serve) = (slices(), service("serve", "10.13.0.1"));
    let drains = settings("member1", ClusterState::Active, OnFailure::Drain);
    let key = decided_without(&serve, &slices, &drains, &flags(), &Outages::default()).frontends[0].0;
    for (address, is_probed) in
        [("10.10.0.7:8080", true), ("10.12.0.6:8080", false), ("10.10.0.9:8080", false)]
    {
        let probe = Probe { address: address.parse().unwrap(), number: 4 };
        let outages = Outages { probes: [(key, probe)].into(), ..failing("member1") };
        let decision = decided_without(&serve, &slices, &drains, &flags(), &outages);
        assert_eq!(decision.frontends[0].1.frontend.probe, Some(probe).filter(|_| is_probed), "{address}");
    }
}
