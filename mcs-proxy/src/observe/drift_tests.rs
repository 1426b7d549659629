use super::*;
use crate::{
    dataplane::pins::DumpedFrontend,
    observe::catalog::{Catalog, CatalogEndpoint, CatalogFrontend},
};
use mcs_proxy_ebpf::abi::{Address, Header, Port, Protocol, Slot};
use std::net::IpAddr;

fn endpoint(address: &str, verdict: &str, slots: u32) -> CatalogEndpoint {
    CatalogEndpoint {
        address: address.parse().unwrap(),
        port: 8080,
        cluster: if address.starts_with("10.10.") { "member1".into() } else { "member2".into() },
        slice: "serve".into(),
        verdict: verdict.into(),
        slots,
        tier: None,
    }
}

fn inventory(algorithm: &str, endpoints: Vec<CatalogEndpoint>) -> Inventory {
    let frontend = CatalogFrontend {
        vip: "10.13.181.116".parse().unwrap(),
        port: 80,
        protocol: "TCP".into(),
        namespace: "default".into(),
        name: "serve".into(),
        port_name: String::new(),
        algorithm: algorithm.into(),
        packets_only: false,
        endpoints,
        active_tier: None,
    };
    Inventory::of(&Catalog { cluster: "member2".into(), frontends: vec![frontend] })
}

fn dumped(port: u16, algorithm: Algorithm, slots: &[&str]) -> DumpedFrontend {
    let slot = |address: &&str| Slot {
        address: Address::from(address.parse::<IpAddr>().unwrap()),
        port: Port::new(8080),
        backend: 1,
    };
    DumpedFrontend {
        key: FrontendKey { vip: "10.13.181.116".parse().unwrap(), port, protocol: Protocol::Tcp },
        index: 0,
        header: Header {
            probe: false,
            count: slots.len() as u32,
            service: 0,
            frontend: 0,
            algorithm,
            affinity_seconds: 0,
            packets_only: false,
        },
        slots: slots.iter().map(slot).collect(),
    }
}

#[test]
fn what_is_missing_different_or_stray_is_told_by_object() {
    use Algorithm::{Maglev, Random, RoundRobin};
    let (a, b) = ("10.10.0.6", "10.12.0.6");
    let both = || vec![endpoint(a, "used", 1), endpoint(b, "used", 1), endpoint("10.12.0.7", "not ready", 0)];
    for (what, algorithm, held, [missing, different, stray], says) in [
        ("the same", "round-robin", vec![dumped(80, RoundRobin, &[b, a])], [0, 0, 0], ""),
        ("any number of a table's entries", "maglev", vec![dumped(80, Maglev, &[a, b, a])], [0, 0, 0], ""),
        ("a catalog of an earlier version", "", vec![dumped(80, Maglev, &[a, b, a])], [0, 0, 0], ""),
        ("nothing", "round-robin", vec![], [1, 0, 0], "do not hold it"),
        ("one less", "round-robin", vec![dumped(80, RoundRobin, &[a])], [0, 1, 0], "lack 10.12.0.6:8080"),
        ("other shares", "random", vec![dumped(80, Random, &[a, b, b])], [0, 1, 0], "2 slots in place of 1"),
        ("another choice", "random", vec![dumped(80, RoundRobin, &[a, b])], [0, 1, 0], "by round-robin"),
        (
            "another port",
            "random",
            vec![dumped(80, Random, &[a, b]), dumped(81, Random, &[a])],
            [0, 0, 1],
            "should not be there",
        ),
    ] {
        let dump = FrontendDump { frontends: held, unreadable: Vec::new() };
        let drift = Drift::between(&inventory(algorithm, both()), &dump);
        assert_eq!([drift.missing, drift.different, drift.stray], [missing, different, stray], "{what}");
        assert_eq!(drift.objects.len(), drift.count(), "{what}");
        assert!(drift.objects.iter().all(|object| object.says.contains(says)), "{what}: {drift:?}");
        let named = drift.objects.iter().filter(|object| object.what != "stray");
        assert!(named.into_iter().all(|object| object.service == "default/serve"), "{what}: {drift:?}");
    }
}

#[test]
fn an_inventory_knows_whose_pod_a_target_is_and_counts_verdicts() {
    let endpoints = vec![endpoint("10.10.0.6", "used", 1), endpoint("10.12.0.6", "not ready", 0)];
    let inventory = inventory("random", endpoints);
    let (_, item) = inventory.frontends().next().unwrap();
    assert_eq!(inventory.cluster(item, "10.10.0.6:8080".parse().unwrap()), Some("member1"));
    assert_eq!(inventory.cluster(item, "10.12.0.6:8080".parse().unwrap()), None, "it takes no flows");
    assert_eq!(inventory.verdicts[&("member2".to_owned(), "not ready".to_owned())], 1);
}
