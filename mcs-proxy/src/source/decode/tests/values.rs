#![expect(clippy::wildcard_enum_match_arm, reason = "anything else fails the test")]

use super::{ALGORITHM, ENABLED, PROXY_NAME, patched_service, patched_slice};
use crate::{
    model::{EndpointSlice, Malformed, MinReady, Model, OptIn, Service, SourceCluster},
    source::{
        Event, Object,
        decode::{Manifest, manifests},
    },
};
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use serde_json::{Value, json};

fn service_of(value: Value) -> Service {
    match manifests(value, "member2").remove(0) {
        Manifest::Object(Object::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn slice_of(value: Value) -> EndpointSlice {
    match manifests(value, "member2").remove(0) {
        Manifest::Object(Object::EndpointSlice(slice)) => slice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_slice_leaves_out_is_as_kube_proxy_takes_it() {
    let slice = slice_of(patched_slice(&[(
        "/endpoints/1",
        json!({"addresses": ["10.12.0.7"], "conditions": {
        "ready": null, "serving": false, "terminating": true}}),
    )]));
    let conditions: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.ready, endpoint.serving, endpoint.terminating))
        .collect();
    assert_eq!(conditions, [(true, true, false), (true, false, true)]);
    assert_eq!((&*slice.ports[0].name, slice.ports[0].protocol), ("", Protocol::Tcp));

    let nil_port = slice_of(patched_slice(&[("/ports/0/port", Value::Null)]));
    assert_eq!((nil_port.ports.len(), nil_port.problems), (1, vec![]));
    for (pointer, value) in [
        ("/addressType", json!("FQDN")),
        ("/metadata/labels", json!({})),
        ("/metadata/labels/service.kubernetes.io~1headless", json!("")),
    ] {
        assert_eq!(manifests(patched_slice(&[(pointer, value)]), "member2"), []);
    }
}

#[test]
fn what_can_be_no_clusters_name_names_none_and_is_told_harmlessly() {
    let from = |provider: &str| {
        slice_of(patched_slice(&[
            (
                "/metadata/labels",
                json!({"kubernetes.io/service-name": "serve",
                       "endpointslice.kubernetes.io/managed-by": "endpointslice-dispatch-controller.karmada.io"}),
            ),
            (
                "/metadata/annotations",
                json!({"endpointslice.karmada.io/provision-cluster": provider,
                       "work.karmada.io/namespace": format!("karmada-es-{provider}")}),
            ),
        ]))
    };
    for (name, words) in [
        ("Local; rm \u{1b}[31mRED\nx", "has at most 63"),
        ("UPPER", "has at most 63"),
        ("-x", "has at most 63"),
        ("a,b", "has at most 63"),
        (&"a".repeat(64), "has at most 63"),
        ("local", "its cluster `local`: in mcs-proxy.io/clusters"),
        ("others", "its cluster `others`: in mcs-proxy.io/clusters"),
    ] {
        let slice = from(name);
        assert_eq!(slice.source, SourceCluster::Unknown, "{name}");
        // Here it is this cluster's, too, which may be called by a word.
        let told = words.starts_with("its cluster").then_some(name);
        assert_eq!(slice.misnamed.as_deref(), told);
        assert_eq!(slice.endpoints.len(), 2);
        let [problem] = slice.problems.as_slice() else { panic!("{:?}", slice.problems) };
        let told = problem.to_string();
        assert!(told.contains("serve-mvgj7") && told.contains(words), "{told}");
        assert!(!told.contains(char::is_control), "{told:?}");
    }
    let slice = from("member1");
    assert_eq!((slice.source, slice.problems), (SourceCluster::Remote("member1".into()), vec![]));
}

#[test]
fn services_without_an_address_of_their_own() {
    for (pointer, value) in [
        ("/spec/clusterIP", json!("None")),
        ("/spec/clusterIPs", json!(["None"])),
        ("/spec/clusterIP", json!("")),
        ("/spec/clusterIP", Value::Null),
        ("/spec/type", json!("ExternalName")),
        ("/metadata/labels/service.kubernetes.io~1headless", json!("")),
    ] {
        let service = service_of(patched_service(&[(pointer, value)]));
        assert_eq!((service.cluster_ips, service.problems), (vec![], vec![]), "{pointer}");
    }
}

#[test]
fn opting_in_and_what_beats_what() {
    for (annotation, label, expected, malformed) in [
        (None, None, OptIn::Unsaid, false),
        (Some("true"), None, OptIn::Annotation, false),
        (Some("false"), None, OptIn::Refused, false),
        (None, Some("mcs-proxy"), OptIn::ProxyName, false),
        (None, Some("cilium"), OptIn::OtherProxy, false),
        (None, Some(""), OptIn::OtherProxy, false),
        (Some("true"), Some("mcs-proxy"), OptIn::Annotation, false),
        (Some("true"), Some("cilium"), OptIn::OtherProxy, false),
        (Some("false"), Some("mcs-proxy"), OptIn::Refused, false),
        (Some("True"), None, OptIn::Unsaid, true),
        (Some(""), Some("mcs-proxy"), OptIn::ProxyName, true),
        (Some("yes"), Some("cilium"), OptIn::OtherProxy, false),
    ] {
        let mut patches = Vec::new();
        patches.extend(annotation.map(|value| (ENABLED, json!(value))));
        patches.extend(label.map(|value| (PROXY_NAME, json!(value))));
        let service = service_of(patched_service(&patches));
        assert_eq!(service.opt_in, expected, "{annotation:?} {label:?}");
        assert_eq!(service.kube_proxy_beneath, label.is_none());
        assert_eq!(service.malformed, Malformed { opt_in: malformed, ..Malformed::default() });
        assert_eq!(service.problems.is_empty(), matches!(annotation, None | Some("true" | "false")));
    }
}

#[test]
fn algorithms() {
    for (value, expected, malformed) in [
        ("round-robin", Some(Algorithm::RoundRobin), false),
        ("random", Some(Algorithm::Random), false),
        ("maglev", Some(Algorithm::Maglev), false),
        ("roundrobin", None, true),
    ] {
        let service = service_of(patched_service(&[(ALGORITHM, json!(value))]));
        assert_eq!((service.algorithm, service.malformed.algorithm), (expected, malformed), "{value}");
        assert_eq!(service.problems.len(), usize::from(malformed));
    }
}

#[test]
fn the_socket_path_is_true_or_false_and_nothing_else() {
    for (value, expected) in [("true", Some(true)), ("false", Some(false)), ("off", None), ("", None)] {
        let patch = ("/metadata/annotations/mcs-proxy.io~1socket-path", json!(value));
        let service = service_of(patched_service(&[patch]));
        assert_eq!((service.socket_path, service.malformed.socket_path), (expected, expected.is_none()));
        assert_eq!(service.problems.len(), usize::from(expected.is_none()), "{value}");
    }
}

#[test]
fn tiers_and_their_threshold_are_read_and_a_malformed_one_keeps_the_last_good() {
    let annotated = |clusters: &str, min_ready: &str| {
        service_of(patched_service(&[
            ("/metadata/annotations/mcs-proxy.io~1clusters", json!(clusters)),
            ("/metadata/annotations/mcs-proxy.io~1min-ready", json!(min_ready)),
        ]))
    };
    let good = annotated("local,others", "50%");
    assert_eq!(good.clusters.as_ref().map(ToString::to_string), Some("local,others".into()));
    assert_eq!(good.min_ready, Some(MinReady::Percent(50)));
    let mut model = Model::default();
    model.apply(Event::Applied(Object::Service(good.clone())));
    model.apply(Event::Applied(Object::Service(annotated("local,,others", "half"))));
    let kept = model.service(&good.key).unwrap();
    assert_eq!((&kept.clusters, kept.min_ready), (&good.clusters, good.min_ready));
    assert_eq!(model.problems().count(), 2);
}

#[test]
fn hints_are_read_and_empty_ones_are_none() {
    let hints = |value: Value| {
        let slice = slice_of(patched_slice(&[("/endpoints/0/hints", value)]));
        slice.endpoints[0].hints().cloned()
    };
    let names = json!({"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "node-1"}]});
    let read = hints(names).unwrap();
    assert_eq!((read.for_zones, read.for_nodes), (vec!["a".into(), "b".into()], vec!["node-1".into()]));
    for nothing in [Value::Null, json!({}), json!({"forZones": [], "forNodes": null})] {
        assert_eq!(hints(nothing), None);
    }
}

/// Rows: what is put where, the field that the only problem names, a part of its text, what is left of the lists.
#[test]
fn a_value_that_makes_no_sense_costs_no_more_than_itself() {
    let rows = [
        ("/spec/ports", json!([]), "spec.ports", "none", (1, 0)),
        ("/spec/ports", Value::Null, "spec.ports", "none", (1, 0)),
        ("/spec/ports/0/port", json!(0), "spec.ports[0].port", "0 is not between", (1, 1)),
        ("/spec/ports/0/port", json!(65536), "spec.ports[0].port", "65536", (1, 1)),
        ("/spec/ports/1/port", json!(-1), "spec.ports[1].port", "-1", (1, 1)),
        ("/spec/ports/0/protocol", json!("tcp"), "spec.ports[0].protocol", "`tcp`", (1, 1)),
        ("/spec/clusterIP", json!("10.13.0.256"), "spec.clusterIP", "10.13.0.256", (0, 2)),
        ("/spec/clusterIPs", json!(["10.13.0.1", "x"]), "spec.clusterIPs[1]", "`x`", (1, 2)),
        ("/spec/clusterIPs", json!(["127.0.0.1", "fd00:13::1"]), "spec.clusterIPs[0]", "loopback", (1, 2)),
        ("/spec/sessionAffinity", json!("Cookie"), "spec.sessionAffinity", "Cookie", (1, 2)),
        ("/spec/internalTrafficPolicy", json!("local"), "spec.internalTrafficPolicy", "`local`", (1, 2)),
        (
            "/metadata/annotations/mcs-proxy.io~1clusters",
            json!("local,Member1"),
            "metadata.annotations[mcs-proxy.io/clusters]",
            "`local,Member1`, column 7: ",
            (1, 2),
        ),
        (
            "/metadata/annotations/mcs-proxy.io~1min-ready",
            json!("0"),
            "metadata.annotations[mcs-proxy.io/min-ready]",
            "`0`, column 1: ",
            (1, 2),
        ),
        (
            "/metadata/annotations/mcs-proxy.io~1socket-path",
            json!("off"),
            "metadata.annotations[mcs-proxy.io/socket-path]",
            "`off` is neither",
            (1, 2),
        ),
        (
            "/metadata/annotations/mcs-proxy.io~1enable",
            json!("true"),
            "metadata.annotations[mcs-proxy.io/enable]",
            "no such",
            (1, 2),
        ),
    ];
    for (pointer, value, field, text, left) in rows {
        let service = service_of(patched_service(&[(pointer, value)]));
        let [problem] = &service.problems[..] else { panic!("{pointer}: {:?}", service.problems) };
        assert_eq!(problem.field, field);
        assert!(problem.to_string().contains(text) && !problem.remedy.is_empty(), "{problem}");
        assert_eq!(problem.object.to_string(), "Service default/serve");
        assert_eq!((service.cluster_ips.len(), service.ports.len()), left, "{problem}");
    }

    let rows = [
        ("/ports/0/port", json!(0), "ports[0].port", "0 is not between", (1, 2)),
        ("/ports/1/port", json!(100_000), "ports[1].port", "100000", (1, 2)),
        ("/ports/0/protocol", json!("QUIC"), "ports[0].protocol", "`QUIC`", (1, 2)),
        ("/addressType", json!("ipv4"), "addressType", "`ipv4`", (2, 0)),
        ("/endpoints/0/addresses", json!([]), "endpoints[0].addresses", "none", (2, 1)),
        ("/endpoints/0/addresses/0", json!("10.0.0.01"), "endpoints[0].addresses[0]", "10.0.0.01", (2, 1)),
        (
            "/endpoints/1/addresses/0",
            json!("fd00::1"),
            "endpoints[1].addresses[0]",
            "no IPv4 address",
            (2, 1),
        ),
        ("/endpoints/1/addresses/0", json!("x\u{7}\n"), "endpoints[1].addresses[0]", "\\n", (2, 1)),
    ];
    for (pointer, value, field, text, left) in rows {
        let slice = slice_of(patched_slice(&[(pointer, value)]));
        let [problem] = &slice.problems[..] else { panic!("{pointer}: {:?}", slice.problems) };
        assert_eq!(problem.field, field);
        assert!(problem.to_string().contains(text) && !problem.remedy.is_empty(), "{problem}");
        assert_eq!(problem.object.to_string(), "EndpointSlice default/serve-mvgj7");
        assert_eq!((slice.ports.len(), slice.endpoints.len()), left, "{problem}");
    }
}

#[test]
fn a_thousand_broken_endpoints_are_told_of_in_a_few_lines() {
    let slice = slice_of(patched_slice(&[("/endpoints", json!(vec![json!({"addresses": ["x"]}); 1000]))]));
    assert_eq!(slice.problems.len(), 9);
    assert!(slice.problems[8].message.contains("992 more"));
}

#[test]
fn a_node_has_a_zone_and_addresses() {
    let document = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "member2-node-1", "labels": {"topology.kubernetes.io/zone": "zone-b"}},
        "status": {"addresses": [
            {"type": "Hostname", "address": "member2-node-1"},
            {"type": "InternalIP", "address": "172.18.0.2"},
            {"type": "InternalIP", "address": "fd18::2"},
            {"type": "ExternalIP", "address": "203.0.113"},
        ]},
    });
    let Manifest::Object(Object::Node(node)) = manifests(document, "member2").remove(0) else { panic!() };
    assert_eq!((node.name(), node.zone.as_deref()), ("member2-node-1", Some("zone-b")));
    assert_eq!(
        node.addresses,
        ["172.18.0.2", "fd18::2"].map(|text| text.parse::<std::net::IpAddr>().unwrap())
    );
    assert_eq!(node.problems[0].field, "status.addresses[3].address");
    assert_eq!(node.problems[0].object.to_string(), "Node member2-node-1");
}
