//! A cluster that means ill, or whose network overlaps ours: what its imports say changes nothing but what they may.

use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    Daemon, ServiceRow, World,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
};
use std::collections::BTreeSet;

const VIP: &str = "10.13.181.116";
const OTHER_VIP: &str = "10.13.0.9";
const LOCAL: &str = "10.12.0.6";
const GOOD: &str = "10.10.0.6";
/// Addresses that an import may not name, and what the daemon says of each.
const BAD: [(&str, &str); 7] = [
    (OTHER_VIP, "a ClusterIP of this cluster"),
    ("192.0.2.12", "an address of this node"),
    ("169.254.169.254", "link-local"),
    ("127.0.0.1", "loopback"),
    ("224.0.0.1", "multicast"),
    ("10.12.0.7", "inside the cidrs that the settings declare for this cluster"),
    ("8.8.8.8", "outside the cidrs that the settings declare for its cluster"),
];
const SURROUNDINGS: &str = r#"apiVersion: v1
kind: Node
metadata: {name: member2-node-1}
status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: mcs-proxy}
data:
  member1: "{cidrs: [10.10.0.0/16]}"
  member2: "{cidrs: [10.12.0.0/16]}"
"#;

fn pods(addresses: &[&str]) -> Result<Vec<Endpoint>> {
    addresses.iter().map(|address| Endpoint::new(address, "node", "pod")).collect()
}

fn import(name: &str, addresses: &[&str]) -> Result<Slice> {
    Ok(Slice::new(name, "serve", "member2", "member1", &pods(addresses)?))
}

fn in_maps(rows: &[ServiceRow], vip: &str) -> BTreeSet<String> {
    let of_vip = rows.iter().filter(|row| row.vip.to_string() == vip);
    let endpoints = of_vip.flat_map(|row| &row.endpoints).filter(|endpoint| endpoint.in_maps);
    endpoints.map(|endpoint| endpoint.address.to_string()).collect()
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|&address| address.to_owned()).collect()
}

#[test]
fn a_hostile_import_changes_nothing_but_what_it_may() -> Result<()> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let manifests = Manifests::new(world.folder("manifests")?)?;
    manifests.write("surroundings", SURROUNDINGS)?;
    for (name, vip) in [("serve", VIP), ("other", OTHER_VIP)] {
        let service = Service::new(name, "member2", &[vip], &[Port::new("", "TCP", 80)])?;
        manifests.service(&service.annotated("enabled", "true"))?;
        manifests.slice(&Slice::new(&format!("{name}-1"), name, "member2", "member2", &pods(&[LOCAL])?))?;
    }
    let source = format!("directory={}", manifests.folder().display());
    let own = ["--source", &source, "--settings", "mcs-proxy/settings", "--max-service-endpoints", "20"];
    let mut daemon = Daemon::start_with(&node, &own)?;

    // Every bad address alone, so that each is told of by name; the good one beside it works.
    for (address, said) in BAD {
        manifests.slice(&import("member1-serve-1", &[GOOD, address])?)?;
        daemon.wait_for_warning(&format!("{address} is {said}"))?;
        daemon.wait_for_services("the good endpoints", |rows| {
            in_maps(rows, VIP) == set(&[LOCAL, GOOD]) && in_maps(rows, OTHER_VIP) == set(&[LOCAL])
        })?;
    }

    // Far more than it may bring, in a second slice; and a slice in another namespace that names our Service.
    let many: Vec<String> = (0..1000).map(|i| format!("10.10.{}.{}", 1 + i / 250, 1 + i % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    manifests.slice(&import("member1-serve-2", &many)?)?;
    let elsewhere = import("member1-serve-3", &["10.10.0.66"])?;
    manifests.write("elsewhere", &elsewhere.yaml().replace("namespace: default", "namespace: evil"))?;
    daemon.wait_for_warning("1000 endpoints from cluster member1")?;
    manifests.slice(&import("member1-serve-1", &[GOOD, "10.10.0.8"])?)?;
    daemon
        .wait_for_services("a later change", |rows| in_maps(rows, VIP) == set(&[LOCAL, GOOD, "10.10.0.8"]))?;
    let rows = daemon.services()?;
    ensure!(rows.len() == 2 && in_maps(&rows, OTHER_VIP) == set(&[LOCAL]), "{rows:#?}");
    Ok(())
}
