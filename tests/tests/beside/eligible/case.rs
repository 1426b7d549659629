//! Random Services and their slices.

use crate::stage::{SERVICES, SLICES};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

const ADDRESSES: usize = 5;

/// A Service and its slices.
#[derive(Clone, Debug)]
pub(super) struct Case {
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

pub(super) fn case() -> impl Strategy<Value = Case> {
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
    pub(super) fn objects(&self, name: &str, objects: &mut Vec<(String, Value)>) -> Vec<String> {
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
