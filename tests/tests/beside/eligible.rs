//! Which endpoints take new connections: random Services and slices, read by kube-proxy and by us.
//!
//! The two must agree, but for what is better by design and tested elsewhere: hints and nodes of imports count for
//! kube-proxy, so that Services with imports have neither here. Where equal addresses contradict one another and
//! neither terminates, kube-proxy's answer is undefined, so that an address has one state beside a terminating one.

use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{Daemon, KubeProxy, ProxyMode, World, api::ApiServer};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::stage::{SERVICES, SLICES};

/// How many Services are compared; `MCS_PROXY_ELIGIBLE=20000` is what a release is tested with.
fn number() -> usize {
    std::env::var("MCS_PROXY_ELIGIBLE")
        .map_or(1_000, |text| text.parse().expect("MCS_PROXY_ELIGIBLE is a number"))
}

const BATCH: usize = 250;
const ADDRESSES: usize = 5;

/// By `service:port`.
type Eligible = BTreeMap<String, BTreeSet<SocketAddr>>;

#[test]
fn the_same_endpoints_take_new_connections_as_in_kube_proxy() -> Result<()> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16", "fd10:12::/64"])?;
    let api = ApiServer::start(&world, "10.13.0.0/16,fd10:13::/112")?;
    api.grant()?;
    api.enter_node(&node)?;
    let zone = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "a" } } });
    api.patch(&format!("/api/v1/nodes/{}", node.name), &zone)?;
    let proxy = KubeProxy::start(&api, &node, ProxyMode::Nftables)?;
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

/// A Service and its slices.
#[derive(Clone, Debug)]
struct Case {
    families: &'static [&'static str],
    local: bool,
    /// Two named ports, or one without a name.
    named: bool,
    pods: Vec<Pod>,
    slices: Vec<Slice>,
}

/// What slices say of the pod that has an address, and of the one that had it before.
#[derive(Clone, Debug)]
struct Pod {
    conditions: [Option<bool>; 3],
    node: Option<&'static str>,
    zones: Vec<&'static str>,
    nodes: Vec<&'static str>,
    former: bool,
}

#[derive(Clone, Debug)]
struct Slice {
    family: &'static str,
    imported: bool,
    headless: bool,
    ports: Vec<(&'static str, &'static str, Option<u16>)>,
    /// Index of the address, and whether the former pod is meant.
    endpoints: Vec<(usize, bool)>,
}

const OWN: &str = "member2-node-1";

fn pod() -> impl Strategy<Value = Pod> {
    let condition = || select(vec![None, Some(true), Some(true), Some(false)]);
    let terminating = select(vec![None, None, None, Some(false), Some(true)]);
    let zones = select(vec![vec![], vec!["a"], vec!["a"], vec!["b"], vec!["a", "b"]]);
    let nodes = select(vec![vec![], vec![], vec![], vec![OWN], vec!["other"]]);
    let node = select(vec![None, Some(OWN), Some("other")]);
    (condition(), condition(), terminating, zones, nodes, node, any::<bool>()).prop_map(
        |(ready, serving, terminating, zones, nodes, node, former)| Pod {
            conditions: [ready, serving, terminating],
            node,
            zones,
            nodes,
            former: former && terminating != Some(true),
        },
    )
}

fn slice() -> impl Strategy<Value = Slice> {
    let port = |name| {
        (
            Just(name),
            select(vec!["TCP", "TCP", "TCP", "UDP"]),
            select(vec![Some(8080), Some(8080), Some(9090), None]),
        )
    };
    let ports = (port(""), port("http"), port("echo"), prop::collection::vec(prop::bool::weighted(0.8), 3))
        .prop_map(|(plain, http, echo, there)| {
            [plain, http, echo]
                .into_iter()
                .zip(there)
                .filter(|(_, there)| *there)
                .map(|(port, _)| port)
                .collect()
        });
    let endpoints = prop::collection::vec((0..ADDRESSES, any::<bool>()), 0..5);
    let families = select(vec!["IPv4", "IPv4", "IPv6"]);
    (families, prop::bool::weighted(0.3), prop::bool::weighted(0.05), ports, endpoints).prop_map(
        |(family, imported, headless, ports, endpoints)| Slice {
            family,
            imported,
            headless,
            ports,
            endpoints,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let families = select(vec![&["IPv4"][..], &["IPv6"], &["IPv4", "IPv6"]]);
    let pods = prop::collection::vec(pod(), ADDRESSES);
    let slices = prop::collection::vec(slice(), 0..5);
    // Every endpoint must have a hint for hints to count: left to chance that is rare.
    (families, prop::bool::weighted(0.2), any::<bool>(), pods, slices, 0..3).prop_map(
        |(families, local, named, mut pods, mut slices, hints)| {
            let imports = slices.iter().any(|slice| slice.imported) && hints == 0 && !local;
            for slice in &mut slices {
                slice.imported &= imports;
            }
            for pod in &mut pods {
                match hints {
                    0 => (pod.zones, pod.nodes) = (Vec::new(), Vec::new()),
                    1 if pod.zones.is_empty() => pod.zones = vec!["a"],
                    _ => {}
                }
            }
            Case { families, local, named, pods, slices }
        },
    )
}

impl Case {
    /// Adds the manifests, and returns the names of the ports.
    fn objects(&self, name: &str, objects: &mut Vec<(String, Value)>) -> Vec<String> {
        let ports = if self.named {
            json!([{ "name": "http", "port": 80 }, { "name": "echo", "port": 53, "protocol": "UDP" }])
        } else {
            json!([{ "port": 80 }])
        };
        let policy = if self.local { "Local" } else { "Cluster" };
        let families = if self.families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
        let spec = json!({
            "ports": ports, "internalTrafficPolicy": policy,
            "ipFamilyPolicy": families, "ipFamilies": self.families,
        });
        let service =
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec });
        objects.push((SERVICES.to_owned(), service));
        for (i, slice) in self.slices.iter().enumerate() {
            objects.push((SLICES.to_owned(), self.slice(&format!("{name}-{i}"), name, slice)));
        }
        if self.named {
            vec![format!("{name}:http"), format!("{name}:echo")]
        } else {
            vec![format!("{name}:")]
        }
    }

    fn slice(&self, name: &str, service: &str, slice: &Slice) -> Value {
        let mut labels = json!({ "kubernetes.io/service-name": service });
        let mut annotations = json!({});
        if slice.imported {
            labels["endpointslice.kubernetes.io/managed-by"] =
                json!("endpointslice-dispatch-controller.karmada.io");
            annotations["endpointslice.karmada.io/provision-cluster"] = json!("member1");
        }
        if slice.headless {
            labels["service.kubernetes.io/headless"] = json!("");
        }
        let ports: Vec<Value> = slice
            .ports
            .iter()
            .map(|(name, protocol, port)| json!({ "name": name, "protocol": protocol, "port": port }))
            .collect();
        let endpoints: Vec<Value> =
            slice.endpoints.iter().map(|&(i, former)| self.endpoint(slice.family, i, former)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": slice.family,
            "metadata": { "name": name, "labels": labels, "annotations": annotations },
            "ports": ports, "endpoints": endpoints,
        })
    }

    fn endpoint(&self, family: &str, i: usize, former: bool) -> Value {
        let address =
            if family == "IPv4" { format!("10.12.0.{}", i + 1) } else { format!("fd10:12::{:x}", i + 1) };
        let pod = &self.pods[i];
        if former && pod.former {
            let conditions = json!({ "ready": false, "serving": true, "terminating": true });
            return json!({ "addresses": [address], "conditions": conditions });
        }
        let [ready, serving, terminating] = pod.conditions;
        let mut endpoint = json!({
            "addresses": [address],
            "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
        });
        if let Some(node) = pod.node {
            endpoint["nodeName"] = json!(node);
        }
        let names = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        if !pod.zones.is_empty() || !pod.nodes.is_empty() {
            endpoint["hints"] = json!({ "forZones": names(&pod.zones), "forNodes": names(&pod.nodes) });
        }
        endpoint
    }
}
