//! Objects for tests, short to write.

use super::*;
use mcs_proxy_ebpf::abi::Protocol;
use proptest::test_runner::{Config, RngSeed};

/// The same cases on every run and every machine.
pub(crate) fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..Config::default() }
}

pub(crate) fn key(name: &str) -> NamespacedName {
    NamespacedName::new("default", name)
}

/// Opted in by its annotation: port 80, TCP, without a name.
pub(crate) fn service(name: &str, vip: &str) -> Service {
    Service {
        key: key(name),
        created: 0,
        opt_in: OptIn::Annotation,
        kube_proxy_beneath: true,
        cluster_ips: vec![vip.parse().unwrap()],
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80 }],
        algorithm: None,
        clusters: None,
        min_ready: None,
        socket_path: None,
        session_affinity: SessionAffinity::None,
        internal_traffic_policy: TrafficPolicy::Cluster,
        externally_exposed: false,
        malformed: Malformed::default(),
        problems: Vec::new(),
    }
}

/// Port 8080, TCP, without a name; the endpoints are ready. `cluster` is `local` or a remote one's name.
pub(crate) fn slice(name: &str, service: &str, cluster: &str, addresses: &[&str]) -> EndpointSlice {
    EndpointSlice {
        key: key(name),
        service: service.into(),
        import: None,
        changed: None,
        importer: Importer::Kubernetes,
        misnamed: None,
        source: match cluster {
            "local" => SourceCluster::Local,
            remote => SourceCluster::Remote(remote.into()),
        },
        ports: [SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }].into(),
        endpoints: addresses.iter().map(|address| endpoint(address, "ready")).collect(),
        problems: Vec::new(),
    }
}

/// `condition`: `ready`, `terminating` (and serving), `dying` (no longer serving), `down` (not ready, not serving) or
/// `published` (terminating, yet ready by publishNotReadyAddresses).
pub(crate) fn endpoint(address: &str, condition: &str) -> Endpoint {
    let (ready, serving, terminating) = match condition {
        "ready" => (true, true, false),
        "terminating" => (false, true, true),
        "dying" => (false, false, true),
        "down" => (false, false, false),
        "published" => (true, true, true),
        other => panic!("no condition `{other}`"),
    };
    Endpoint { address: address.parse().unwrap(), ready, serving, terminating, place: None }
}
