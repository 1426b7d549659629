use super::*;
use crate::{desired::Flags, explain::offline, source::Scope};
use std::path::Path;

fn scope() -> Scope {
    Scope {
        cluster_name: "member2".into(),
        node_name: "member2-node-1".into(),
        settings: None,
        discovery_interval: std::time::Duration::ZERO,
    }
}

fn flags() -> Flags {
    Flags {
        cluster_name: "member2".into(),
        node_name: "member2-node-1".into(),
        default_algorithm: Algorithm::RoundRobin,
        all_services: false,
        tier_hold: std::time::Duration::ZERO,
        eject_unanswered: false,
    }
}

fn manifests() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/demo-member2")
}

fn explain(target: &str, client: Option<&str>) -> Result<Explanation, String> {
    let query =
        Query { target: target.parse().unwrap(), client: client.map(|client| client.parse().unwrap()) };
    let offline =
        offline(&manifests(), flags(), &scope(), Model::default(), Some(&query), None, 2_000_000_000);
    offline.unwrap().explanations.map(|mut explanations| explanations.remove(0))
}

#[test]
fn every_endpoint_is_told_with_its_slice_importer_cluster_conditions_and_share() {
    let explanation = explain("default/serve", None).unwrap();
    assert!(explanation.served && explanation.because.contains("mcs-proxy.io/enabled"), "{explanation:?}");
    let [frontend] = explanation.frontends.as_slice() else { panic!("{explanation:?}") };
    let shares: Vec<_> =
        frontend.endpoints.iter().map(|endpoint| (endpoint.cluster.as_str(), endpoint.share)).collect();
    assert_eq!(shares, [("member2", 0.5), ("member1", 0.5)]);
    let imported = frontend.endpoints.iter().find(|endpoint| endpoint.slice.starts_with("member1-")).unwrap();
    assert_eq!(imported.cluster, "member1");
    assert_eq!(imported.importer.as_deref(), Some("Karmada MultiClusterService"));
    assert_eq!((imported.verdict.as_str(), imported.reason.as_str()), ("used", "takes new flows"));
    assert!(imported.conditions.unwrap().ready && imported.age_seconds.is_some(), "{imported:?}");
    assert_eq!(frontend.maps, None);
}

#[test]
fn a_frontend_finds_its_service_and_a_clients_flow_is_told() {
    let service = explain("default/serve", None).unwrap();
    let frontend = &service.frontends[0];
    let address = SocketAddr::new(frontend.vip, frontend.port).to_string();
    let explanation = explain(&address, Some("10.12.0.9:40000")).unwrap();
    assert_eq!((explanation.name.as_str(), explanation.frontends.len()), ("serve", 1));
    let flow = explanation.frontends[0].flow.clone().unwrap();
    assert!(flow.client == "10.12.0.9:40000" && flow.next.contains("whose turn it is"), "{flow:?}");
}

#[test]
fn a_clients_flows_are_told_of_every_service_if_none_is_named() {
    let client = Some("10.12.0.9:40000".parse().unwrap());
    let told =
        offline(&manifests(), flags(), &scope(), Model::default(), None, client, 2_000_000_000).unwrap();
    let told = told.explanations.unwrap();
    assert!(!told.is_empty());
    for frontend in told.iter().flat_map(|one| &one.frontends) {
        assert_eq!(frontend.flow.as_ref().unwrap().client, "10.12.0.9:40000");
    }
}

#[test]
fn what_is_not_known_is_an_error_that_says_where_to_look() {
    let error = explain("default/nothing", None).unwrap_err();
    assert!(error.contains("kubectl get service -n default nothing"), "{error}");
    let vip = explain("default/serve", None).unwrap().frontends[0].vip;
    let error = explain(&SocketAddr::new(vip, 81).to_string(), None).unwrap_err();
    assert!(error.contains("mcs-proxy explain default/serve"), "{error}");
    let error = explain("192.0.2.1:80", None).unwrap_err();
    assert!(error.contains("no Service that is known here has this address"), "{error}");
}

#[test]
fn what_is_explained_survives_json() {
    let explanation = explain("default/serve", Some("10.12.0.9")).unwrap();
    let text = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation);
}

#[test]
fn what_is_wrong_beside_what_is_explained_is_told_too() {
    let folder = std::env::temp_dir().join(format!("mcs-proxy-explain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for file in std::fs::read_dir(manifests()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    std::fs::write(folder.join("broken.yaml"), "kind: [Service").unwrap();
    let settings = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: default},\n  data: {mode: dran}}\n";
    std::fs::write(folder.join("settings.yaml"), settings).unwrap();
    let scope = Scope { settings: Some(NamespacedName::new("default", "settings")), ..scope() };
    for target in [Some("default/serve"), Some("default/nope"), None] {
        let query = target.map(|target| Query { target: target.parse().unwrap(), client: None });
        let said =
            offline(&folder, flags(), &scope, Model::default(), query.as_ref(), None, 2_000_000_000).unwrap();
        assert_eq!(said.explanations.is_ok(), target != Some("default/nope"));
        let [file, settings] = said.others.as_slice() else { panic!("{said:?}") };
        assert!(settings.contains("default/settings") && settings.contains("dran"), "{settings}");
        assert!(file.contains("broken.yaml"), "{file}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_local_service_without_a_node_name_is_explained_by_what_is_missing() {
    let folder = std::env::temp_dir().join(format!("mcs-proxy-unnamed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let manifests = "{apiVersion: v1, kind: Service, metadata: {name: serve, namespace: default, annotations: {mcs-proxy.io/enabled: \"true\"}},
  spec: {clusterIP: 10.13.0.1, clusterIPs: [10.13.0.1], internalTrafficPolicy: Local, ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{port: 8080}],
  metadata: {name: serve-1, namespace: default, labels: {kubernetes.io/service-name: serve}},
  endpoints: [{addresses: [10.12.0.6], nodeName: node-1}]}
";
    std::fs::write(folder.join("serve.yaml"), manifests).unwrap();
    for (node, verdict, reason, problems) in [
        ("", "this node unnamed", "no --node-name says which that is", 1),
        ("node-2", "other node", "keep to endpoints of this node, node-2", 0),
        ("node-1", "used", "takes new flows", 0),
    ] {
        let flags = Flags { node_name: node.into(), ..flags() };
        let scope = Scope { node_name: node.into(), ..scope() };
        let told = offline(&folder, flags, &scope, Model::default(), None, None, 2_000_000_000).unwrap();
        let told = told.explanations.unwrap().remove(0);
        let endpoint = &told.frontends[0].endpoints[0];
        assert_eq!(endpoint.verdict, verdict, "{endpoint:?}");
        assert!(endpoint.reason.contains(reason), "{endpoint:?}");
        assert_eq!(told.problems.len(), problems, "{:?}", told.problems);
    }
    std::fs::remove_dir_all(folder).unwrap();
}
