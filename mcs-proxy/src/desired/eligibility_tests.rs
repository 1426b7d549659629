use super::*;
use crate::model::{
    ClusterSettings, SlicePort, Surroundings,
    testing::{endpoint, service, slice},
};
use EndpointVerdict::{Duplicate, NotReady, Rejected, Terminating, Used, UsedTerminating};
use mcs_proxy_ebpf::abi::Protocol;

const VIP: &str = "10.13.181.116";

fn verdicts(vip: &str, slices: &[EndpointSlice]) -> Vec<(String, EndpointVerdict)> {
    let port = service("serve", vip).ports.remove(0);
    let member3 = ClusterSettings { cidrs: vec!["10.15.0.0/16".parse().unwrap()], ..Default::default() };
    let settings = Settings { clusters: [("member3".into(), member3)].into(), ..Default::default() };
    let refusal = |address, source: &_| Surroundings::default().refusal(address, source, "member2");
    let mut candidates = list(&port, vip.parse().unwrap(), slices.iter(), refusal, &settings);
    judge_readiness(&mut candidates);
    candidates.iter().map(|candidate| (candidate.address.to_string(), candidate.verdict)).collect()
}

/// Endpoints of one slice, in the terms of [`endpoint`], and what becomes of them.
#[test]
fn ready_ones_take_new_flows_and_if_there_are_none_those_that_still_serve() {
    let rows: &[&[(&str, EndpointVerdict)]] = &[
        &[("ready", Used), ("ready", Used)],
        &[("ready", Used), ("terminating", Terminating), ("dying", Terminating), ("down", NotReady)],
        &[("terminating", UsedTerminating), ("dying", NotReady), ("down", NotReady)],
        &[("published", Used), ("terminating", Terminating)],
        &[("dying", NotReady), ("down", NotReady)],
        &[],
    ];
    for row in rows {
        let mut only = slice("a", "serve", "local", &[]);
        only.endpoints = row
            .iter()
            .zip(1..)
            .map(|((condition, _), i)| endpoint(&format!("10.12.0.{i}"), condition))
            .collect();
        let found: Vec<_> = verdicts(VIP, &[only]).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(found, row.iter().map(|(_, verdict)| *verdict).collect::<Vec<_>>(), "{row:?}");
    }
}

/// One address in two slices: cluster and condition in each, and the verdicts.
#[test]
fn of_duplicates_the_living_one_counts_then_the_local_one_then_the_first_slice() {
    for (first, second, expected) in [
        (("member1", "ready"), ("member1", "ready"), [Used, Duplicate]),
        (("member1", "terminating"), ("member1", "ready"), [Duplicate, Used]),
        (("member1", "ready"), ("member1", "terminating"), [Used, Duplicate]),
        (("member1", "ready"), ("local", "ready"), [Duplicate, Used]),
        (("local", "terminating"), ("member1", "ready"), [Duplicate, Used]),
        (("member1", "ready"), ("local", "down"), [Duplicate, NotReady]),
        (("member1", "terminating"), ("member3", "terminating"), [UsedTerminating, Duplicate]),
    ] {
        let slices = [("a", first), ("b", second)].map(|(name, (cluster, condition))| {
            let mut slice = slice(name, "serve", cluster, &[]);
            slice.endpoints = vec![endpoint("10.10.0.6", condition)];
            slice
        });
        let found: Vec<_> = verdicts(VIP, &slices).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(found, expected, "{first:?} {second:?}");
    }
}

/// member3 has declared where its endpoints lie; anybody may name them.
#[test]
fn a_slice_of_another_cluster_does_not_take_an_endpoint_over_from_the_one_that_declares_it() {
    for (condition, expected) in [("ready", [Duplicate, Used]), ("terminating", [Used, Duplicate])] {
        let slices =
            [("a", "evil", "ready"), ("b", "member3", condition)].map(|(name, cluster, condition)| {
                let mut slice = slice(name, "serve", cluster, &[]);
                slice.endpoints = vec![endpoint("10.15.0.6", condition)];
                slice
            });
        let found: Vec<_> = verdicts(VIP, &slices).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(found, expected, "{condition}");
    }
}

#[test]
fn the_same_address_on_another_port_is_no_duplicate() {
    let mut other = slice("b", "serve", "member1", &["10.10.0.6"]);
    other.ports = [SlicePort { port: 9090, ..other.ports[0].clone() }].into();
    let slices = [slice("a", "serve", "member1", &["10.10.0.6"]), other];
    assert_eq!(verdicts(VIP, &slices), [("10.10.0.6:8080".into(), Used), ("10.10.0.6:9090".into(), Used)]);
}

#[test]
fn a_rejected_address_is_never_used_and_hides_no_other() {
    let slices = [
        slice("a", "serve", "member1", &["127.0.0.1", "169.254.169.254", "10.10.0.6"]),
        slice("b", "serve", "member1", &["127.0.0.1"]),
    ];
    let found: Vec<_> = verdicts(VIP, &slices).into_iter().map(|(_, verdict)| verdict).collect();
    let (loopback, link_local) =
        (Rejected(Refusal::Range("loopback")), Rejected(Refusal::Range("link-local")));
    assert_eq!(found, [loopback, link_local, Used, loopback]);
}

#[test]
fn ports_match_by_name_and_protocol_and_endpoints_by_family() {
    let mut odd = slice("a", "serve", "local", &["10.12.0.6"]);
    odd.ports = [("", Protocol::Udp, 1), ("http", Protocol::Tcp, 2), ("", Protocol::Tcp, 3)]
        .map(|(name, protocol, port)| SlicePort { name: name.into(), protocol, port })
        .into();
    let six = slice("b", "serve", "local", &["fd00:10:12::6"]);
    let slices = [odd, six];
    assert_eq!(verdicts(VIP, &slices), [("10.12.0.6:3".into(), Used)]);
    assert_eq!(verdicts("fd00:10:13::1", &slices), [("[fd00:10:12::6]:8080".into(), Used)]);
}
