//! Which endpoints take new connections: random Services and slices, read by kube-proxy and by us.
//!
//! The two must agree, but for what is better by design and tested elsewhere: hints and nodes of imports count for
//! kube-proxy, so that Services with imports have neither here. Where equal addresses contradict one another and
//! neither terminates, kube-proxy's answer is undefined, so that an address has one state beside a terminating one.

mod case;

use crate::{
    in_both_modes,
    stage::{SERVICES, SLICES},
};
use anyhow::{Context, Result, ensure};
use case::case;
use mcs_proxy_tests::{Daemon, KubeProxy, ProxyMode, World, api::ApiServer};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

in_both_modes! {
    alike: the_same_endpoints_take_new_connections_as_in_kube_proxy_with_nftables,
        the_same_endpoints_take_new_connections_as_in_kube_proxy_with_iptables;
}

/// How many Services are compared; `MCS_PROXY_ELIGIBLE=20000` is what a release is tested with.
fn number() -> usize {
    std::env::var("MCS_PROXY_ELIGIBLE")
        .map_or(1_000, |text| text.parse().expect("MCS_PROXY_ELIGIBLE is a number"))
}

const BATCH: usize = 250;

/// By `service:port`.
type Eligible = BTreeMap<String, BTreeSet<SocketAddr>>;

fn alike(mode: ProxyMode) -> Result<()> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16", "fd10:12::/64"])?;
    let api = ApiServer::start(&world, "10.13.0.0/16,fd10:13::/112")?;
    api.grant()?;
    api.enter_node(&node)?;
    let zone = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "a" } } });
    api.patch(&format!("/api/v1/nodes/{}", node.name), &zone)?;
    let proxy = KubeProxy::start(&api, &node, mode)?;
    let kubeconfig = api.daemon_kubeconfig().display().to_string();
    let arguments = ["--source", "kubernetes", "--kubeconfig", &kubeconfig, "--all-services"];
    let daemon = Daemon::start_with(&node, &arguments)?;

    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(5), ..Config::default() });
    let mut compared = 0;
    let mut kinds: BTreeMap<usize, usize> = BTreeMap::new();
    while compared < number() {
        let mut objects = Vec::new();
        let mut expected_ports = BTreeSet::new();
        for i in compared..compared + BATCH {
            let case = case().new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
            expected_ports.extend(case.objects(&format!("s{i}"), &mut objects));
        }
        let last = format!("last{compared}");
        objects.extend(sentinel(&last));
        api.create_all(&objects)?;
        let last = format!("{last}:");
        let theirs = wait(&last, || proxy.all_endpoints())?;
        let ours = wait(&last, || ours(&daemon))?;
        for port in &expected_ports {
            let [ours, theirs] = [&ours, &theirs].map(|all| all.get(port).cloned().unwrap_or_default());
            let service = port.split(':').next().unwrap_or_default();
            let of = |(_, object): &&(String, Value)| {
                object["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.split('-').next() == Some(service))
            };
            let case: Vec<_> = objects.iter().filter(of).map(|(_, object)| object.to_string()).collect();
            ensure!(ours == theirs, "{port}: ours {ours:?}, kube-proxy's {theirs:?}:\n{}", case.join("\n"));
            *kinds.entry(theirs.len()).or_default() += 1;
        }
        compared += BATCH;
    }
    eprintln!("{compared} Services compared; ports by number of endpoints: {kinds:?}");
    ensure!((0..=3).all(|count| kinds.contains_key(&count)), "the cases are too much alike: {kinds:?}");
    Ok(())
}

/// What our maps hold.
fn ours(daemon: &Daemon) -> Result<Eligible> {
    let rows: Vec<Value> = serde_json::from_str(&daemon.show(&["services", "-o", "json"])?)?;
    let mut all = Eligible::new();
    for row in &rows {
        let text = |field: &str| row[field].as_str().with_context(|| format!("no {field}: {row}"));
        let endpoints = all.entry(format!("{}:{}", text("name")?, text("port_name")?)).or_default();
        for endpoint in row["endpoints"].as_array().context("no endpoints")? {
            if endpoint["in_maps"] == true {
                let address = endpoint["address"].as_str().context("no address")?.parse()?;
                let port =
                    endpoint["port"].as_u64().and_then(|port| port.try_into().ok()).context("no port")?;
                endpoints.insert(SocketAddr::new(address, port));
            }
        }
    }
    Ok(all)
}

/// Until the Service that was created last is there, in both families, which kube-proxy programs by turns: then all
/// before it are.
fn wait(last: &str, read: impl Fn() -> Result<Eligible>) -> Result<Eligible> {
    let start = Instant::now();
    loop {
        let all = read()?;
        if all.get(last).is_some_and(|endpoints| endpoints.len() == 2) {
            return Ok(all);
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "no {last} within a minute");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn sentinel(name: &str) -> [(String, Value); 3] {
    let metadata = json!({ "name": name });
    let spec = json!({ "ports": [{ "port": 80 }], "ipFamilyPolicy": "RequireDualStack" });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec });
    let slice = |family: &str, address: &str| {
        let own = format!("{name}-{}", family.to_lowercase());
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": { "name": own, "labels": { "kubernetes.io/service-name": name } },
            "ports": [{ "name": "", "port": 8080 }], "endpoints": [{ "addresses": [address] }],
        })
    };
    let slices = [slice("IPv4", "10.12.0.200"), slice("IPv6", "fd10:12::200")];
    let [v4, v6] = slices.map(|slice| (SLICES.to_owned(), slice));
    [(SERVICES.to_owned(), service), v4, v6]
}
