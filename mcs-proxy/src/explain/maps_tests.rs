use super::*;
use crate::explain::ExplainedEndpoint;
use mcs_proxy_ebpf::abi::Protocol;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 13, 181, 116));

fn endpoint(address: &str, slots: u32) -> ExplainedEndpoint {
    ExplainedEndpoint {
        address: address.parse().unwrap(),
        port: 8080,
        slice: "a".into(),
        age_seconds: None,
        importer: None,
        cluster: "member1".into(),
        node: None,
        zone: None,
        conditions: None,
        tier: None,
        slots,
        share: 0.0,
        verdict: "used".into(),
        reason: String::new(),
    }
}

fn explanation(told_by: &str, endpoints: Vec<ExplainedEndpoint>) -> Explanation {
    let frontend = ExplainedFrontend {
        vip: VIP,
        port: 80,
        protocol: "TCP".into(),
        port_name: String::new(),
        algorithm: if told_by == "names" { String::new() } else { "random".into() },
        affinity_seconds: 0,
        packets_only: false,
        active_tier: None,
        lost_to: None,
        endpoints,
        flow: None,
        maps: None,
    };
    Explanation {
        cluster: "member2".into(),
        node: None,
        told_by: told_by.into(),
        namespace: "default".into(),
        name: "serve".into(),
        served: true,
        because: String::new(),
        problems: Vec::new(),
        frontends: vec![frontend],
        strays: Vec::new(),
    }
}

fn held(port: u16, algorithm: &str, backends: &[(&str, u32)]) -> Held {
    let backend = |(address, slots): &(&str, u32)| HeldBackend {
        address: SocketAddr::new(address.parse().unwrap(), 8080),
        slots: *slots,
    };
    let key = FrontendKey { vip: VIP, port, protocol: Protocol::Tcp };
    Held {
        key,
        algorithm: algorithm.into(),
        packets_only: false,
        backends: backends.iter().map(backend).collect(),
    }
}

#[test]
fn sockets_that_are_served_against_the_annotation_or_left_alone_without_it_are_told() {
    let slots = &[("10.10.0.6", 1)][..];
    for (wanted, found, says) in
        [(true, false, "serve sockets"), (false, true, "leave sockets alone"), (true, true, "the same")]
    {
        let mut explanation = explanation("daemon", vec![endpoint("10.10.0.6", 1)]);
        explanation.frontends[0].packets_only = wanted;
        compare(&mut explanation, &[Held { packets_only: found, ..held(80, "random", slots) }], &[]);
        let maps = explanation.frontends[0].maps.clone().unwrap();
        assert!(maps.agree == (wanted == found) && maps.says.contains(says), "{maps:?}");
    }
}

#[test]
fn every_way_in_which_the_maps_can_differ_is_told() {
    let wanted = [endpoint("10.10.0.6", 1), endpoint("10.12.0.6", 2), endpoint("10.12.0.7", 0)];
    let same = &[("10.10.0.6", 1), ("10.12.0.6", 2)][..];
    for (what, held, agree, says) in [
        ("the same", Some(held(80, "random", same)), true, "3 slots, 2 backends"),
        ("nothing", None, false, "do not hold it"),
        ("another port alone", Some(held(81, "random", same)), false, "do not hold it"),
        ("another algorithm", Some(held(80, "maglev", same)), false, "choose by maglev"),
        ("one lacks", Some(held(80, "random", &[("10.12.0.6", 2)])), false, "lack 10.10.0.6:8080"),
        (
            "other shares",
            Some(held(80, "random", &[("10.10.0.6", 1), ("10.12.0.6", 1)])),
            false,
            "1 slots in place of 2",
        ),
        (
            "one too many",
            Some(held(80, "random", &[same[0], same[1], ("10.12.0.7", 1)])),
            false,
            "hold 10.12.0.7:8080, which should get nothing",
        ),
    ] {
        let mut explanation = explanation("daemon", wanted.to_vec());
        compare(&mut explanation, held.as_slice(), &[]);
        let maps = explanation.frontends[0].maps.clone().unwrap();
        assert!(maps.agree == agree && maps.says.contains(says), "{what}: {maps:?}");
    }
}

#[test]
fn what_the_maps_hold_beside_it_is_told_if_the_whole_service_was_asked_for() {
    let all = [held(80, "random", &[]), held(81, "random", &[])];
    for (vips, strays) in [(&[VIP][..], vec!["TCP 10.13.181.116:81".to_owned()]), (&[], vec![])] {
        let mut explanation = explanation("daemon", Vec::new());
        compare(&mut explanation, &all, vips);
        assert_eq!(explanation.strays, strays);
    }
}

#[test]
fn without_a_daemon_the_maps_say_how_many_slots_an_endpoint_has() {
    let mut explanation = explanation("names", vec![endpoint("10.10.0.6", 0), endpoint("10.12.0.6", 0)]);
    compare(&mut explanation, &[held(80, "maglev", &[("10.10.0.6", 1), ("10.12.0.6", 3)])], &[]);
    let frontend = &explanation.frontends[0];
    assert_eq!((frontend.endpoints[1].slots, frontend.endpoints[1].share), (3, 0.75));
    assert!(frontend.algorithm == "maglev" && frontend.maps.as_ref().unwrap().agree, "{frontend:?}");
}
