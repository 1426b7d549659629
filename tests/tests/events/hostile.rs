//! What other clusters, and whoever may create imports, can say through the API server: it changes nothing but what it
//! may, and is told of.

use crate::stage::{SLICES, Stage};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{Daemon, ServiceRow, crd};
use serde_json::json;
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

const SETTINGS: &str = r#"{apiVersion: v1, kind: ConfigMap, metadata: {name: mcs-proxy}, data: {
    member1: "{cidrs: [10.10.0.0/16, 'fd10:10::/32']}",
    member2: "{cidrs: [10.12.0.0/16, 'fd10:12::/32']}"}}"#;
const ARGUMENTS: [&str; 6] = [
    "--settings",
    "mcs-proxy/mcs-proxy",
    "--max-service-endpoints",
    "20",
    "--serviceimport-cidrs",
    "243.0.0.0/8,fd43::/64",
];

/// The endpoints that the maps hold: Service and address.
fn in_maps(rows: &[ServiceRow]) -> BTreeSet<(String, String)> {
    let of = |row: &ServiceRow| {
        let used = row.endpoints.iter().filter(|endpoint| endpoint.in_maps);
        used.map(|endpoint| (row.name.clone(), endpoint.address.to_string())).collect::<Vec<_>>()
    };
    rows.iter().flat_map(of).collect()
}

fn endpoints(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected.iter().map(|&(name, address)| (name.to_owned(), address.to_owned())).collect()
}

/// Has the import claim these addresses, as soon as its kind is served.
fn claim(stage: &Stage, name: &str, ips: [&str; 2]) -> Result<()> {
    let path = format!("/apis/{}/v1beta1/namespaces/default/serviceimports", crd::GROUP);
    let start = Instant::now();
    while stage.api.get(&path).is_err() {
        ensure!(start.elapsed() < Duration::from_secs(30), "ServiceImports are not served");
        thread::sleep(Duration::from_millis(50));
    }
    let import = json!({
        "apiVersion": format!("{}/v1beta1", crd::GROUP), "kind": "ServiceImport",
        "metadata": {"name": name, "annotations": {"mcs-proxy.io/enabled": "true"}},
        "spec": {"type": "ClusterSetIP", "ips": ips, "ports": [{"name": "http", "port": 80}]},
    });
    stage.api.create(&path, &import.to_string())
}

fn expect_event(stage: &Stage, name: &str, count: usize, reason: &str, words: &str) -> Result<()> {
    let events = stage.wait_for_events(name, count)?;
    ensure!(events.iter().all(|event| event["reason"] == reason), "{events:#?}");
    let says = |note: Option<&str>| note.is_some_and(|note| note.contains(words));
    ensure!(events.iter().any(|event| says(event["note"].as_str())), "no {words:?} in {events:#?}");
    Ok(())
}

/// Serves good endpoints of both families.
fn start(stage: &Stage) -> Result<Daemon> {
    stage.api.create("/api/v1/namespaces/mcs-proxy/configmaps", SETTINGS)?;
    stage.api.create(crd::CRDS, &crd::service_imports(&["v1beta1"]).to_string())?;
    for (name, ip) in [
        ("serve", "10.13.181.116"),
        ("six", "fd10:13::116"),
        ("other", "10.13.0.9"),
        ("other6", "fd10:13::9"),
    ] {
        stage.service(name, ip, "random")?;
    }
    stage.import("member1-serve-good", "serve", &["10.10.0.6"])?;
    stage.import("member1-six-good", "six", &["fd10:10::6"])?;
    let mut daemon = stage.daemon_with(0, &ARGUMENTS)?;
    let good = endpoints(&[("serve", "10.10.0.6"), ("six", "fd10:10::6")]);
    daemon.wait_for_services("the good endpoints", |rows| in_maps(rows) == good)?;
    Ok(daemon)
}

#[test]
fn what_a_hostile_cluster_or_import_claims_at_the_api_server_is_an_event_and_no_endpoint() -> Result<()> {
    let stage = Stage::new()?;
    let mut daemon = start(&stage)?;

    // The API server itself refuses link-local and loopback addresses, but not a cloud's metadata service over IPv6.
    for (name, service, address, said) in [
        ("bad-vip", "serve", "10.13.0.9", "a ClusterIP of this cluster"),
        ("bad-vip6", "six", "fd10:13::9", "a ClusterIP of this cluster"),
        ("bad-node", "serve", "192.0.2.1", "an address of this node"),
        ("bad-node6", "six", "2001:db8::1", "an address of this node"),
        ("bad-metadata6", "six", "fd00:ec2::254", "a cloud's metadata service"),
        ("bad-overlap", "serve", "10.12.1.7", "inside the cidrs that the settings declare for this cluster"),
        ("bad-overlap6", "six", "fd10:12::7", "inside the cidrs that the settings declare for this cluster"),
        ("bad-range", "serve", "8.8.8.8", "outside the cidrs that the settings declare for its cluster"),
        ("bad-range6", "six", "2001:4860::8", "outside the cidrs that the settings declare for its cluster"),
    ] {
        stage.import(name, service, &[address])?;
        expect_event(&stage, name, 1, "RejectedEndpoints", &format!("{address} is {said}"))?;
    }

    let many: Vec<String> = (0..1000).map(|i| format!("10.10.{}.{}", 1 + i / 250, 1 + i % 250)).collect();
    let many6: Vec<String> = (0..1000).map(|i| format!("fd10:10::1:{:x}", 1 + i)).collect();
    for (name, service, many) in [("many", "serve", many), ("many6", "six", many6)] {
        stage.import(name, service, &many.iter().map(String::as_str).collect::<Vec<_>>())?;
        expect_event(&stage, name, 1, "TooManyEndpoints", "1000 endpoints from cluster member1")?;
    }

    let claimed = "is the ClusterIP of Service default/other";
    for (name, ips, said) in [
        ("claims-service", ["10.13.0.9", "fd10:13::9"], claimed),
        ("claims-node", ["192.0.2.1", "2001:db8::1"], "is this node's address"),
        ("claims-world", ["8.8.8.8", "2001:4860::8"], "is outside --serviceimport-cidrs"),
    ] {
        claim(&stage, name, ips)?;
        expect_event(&stage, name, 2, "RefusedAddress", said)?;
    }

    // Another namespace's slice that names our Service is that namespace's alone.
    stage.api.create("/api/v1/namespaces", "{apiVersion: v1, kind: Namespace, metadata: {name: evil}}")?;
    let elsewhere = SLICES.replace("/default/", "/evil/");
    let slice =
        Stage::slice("evil", "serve", &["10.10.0.66"])?.replace("namespace: default", "namespace: evil");
    stage.api.create(&elsewhere, &slice)?;

    // A change that comes after all of it: by then the rest has been taken in.
    stage.import("member1-serve-later", "serve", &["10.10.0.8"])?;
    stage.import("member1-six-later", "six", &["fd10:10::8"])?;
    let expected = endpoints(&[
        ("serve", "10.10.0.6"),
        ("serve", "10.10.0.8"),
        ("six", "fd10:10::6"),
        ("six", "fd10:10::8"),
    ]);
    daemon.wait_for_services("the later endpoints and no others", |rows| in_maps(rows) == expected)?;
    let rows = daemon.services()?;
    ensure!(rows.len() == 4, "{rows:#?}");
    Ok(())
}
