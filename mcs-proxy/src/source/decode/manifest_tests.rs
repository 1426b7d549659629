use super::*;
use crate::model::{Malformed, OptIn, testing};
use mcs_proxy_ebpf::abi::Algorithm;
use proptest::prelude::*;
use serde_json::json;

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn objects(text: &str) -> Vec<Object> {
    let object = |manifest| match manifest {
        Manifest::Object(object) => object,
        Manifest::Unreadable { .. } | Manifest::Nameless { .. } => panic!("{manifest:?}"),
    };
    manifests(yaml(text), "member2").into_iter().map(object).collect()
}

fn service_of(value: Value) -> crate::model::Service {
    match manifests(value, "member2").remove(0) {
        Manifest::Object(Object::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn slice_of(value: Value) -> crate::model::EndpointSlice {
    match manifests(value, "member2").remove(0) {
        Manifest::Object(Object::EndpointSlice(slice)) => slice,
        other => panic!("{other:?}"),
    }
}

/// A sound Service, with the values at these JSON pointers put in.
fn patched_service(patches: &[(&str, Value)]) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "serve", "namespace": "default", "annotations": {}, "labels": {}},
        "spec": {"clusterIP": "10.13.181.116", "ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
    });
    patches.iter().for_each(|(pointer, value)| patch(&mut service, pointer, value.clone()));
    service
}

fn patched_slice(patches: &[(&str, Value)]) -> Value {
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "serve-mvgj7", "namespace": "default", "labels": {"kubernetes.io/service-name": "serve"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        "endpoints": [{"addresses": ["10.12.0.6"]}, {"addresses": ["10.12.0.7", "10.12.0.8"]}],
    });
    patches.iter().for_each(|(pointer, value)| patch(&mut slice, pointer, value.clone()));
    slice
}

fn patch(document: &mut Value, pointer: &str, value: Value) {
    let (parent, leaf) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[leaf.parse::<usize>().unwrap()] = value,
        parent => parent[leaf.replace("~1", "/")] = value,
    }
}

const ENABLED: &str = "/metadata/annotations/mcs-proxy.io~1enabled";
const ALGORITHM: &str = "/metadata/annotations/mcs-proxy.io~1algorithm";
const PROXY_NAME: &str = "/metadata/labels/service.kubernetes.io~1service-proxy-name";

#[test]
fn karmadas_slices_are_read_with_their_cluster_and_their_null_lists() {
    let multi_cluster_service = [
        include_str!("../fixtures/karmada/member2-endpointslices.yaml"),
        include_str!("../fixtures/karmada/member3-endpointslices.yaml"),
        include_str!("../fixtures/karmada/legacy-member2-endpointslices.yaml"),
    ];
    let read: Vec<String> = multi_cluster_service
        .iter()
        .flat_map(|text| objects(text))
        .map(|object| {
            let Object::EndpointSlice(slice) = object else { panic!("{object:?}") };
            assert_eq!(slice.problems, []);
            let ports: Vec<_> =
                slice.ports.iter().map(|port| format!("{}:{}", port.name, port.port)).collect();
            let ips: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            format!("{} {} {} {ports:?} {ips:?}", slice.key.name, slice.service, slice.source)
        })
        .collect();
    assert_eq!(
        read,
        [
            r#"kubernetes kubernetes local ["https:21022"] ["192.0.2.10"]"#,
            r#"member1-serve-4j6n5 serve member1 [":8080"] ["10.10.0.6"]"#,
            r#"serve-mnvft serve local [":8080"] ["10.12.0.6"]"#,
            r#"kubernetes kubernetes local ["https:21032"] ["192.0.2.10"]"#,
            r#"member1-serve-4j6n5 serve member1 [":8080"] ["10.10.0.6"]"#,
            r#"member2-serve-mnvft serve member2 [":8080"] ["10.12.0.6"]"#,
            r#"serve-rnxxl serve local [] []"#,
            r#"headless-qmgnc headless local [] []"#,
            r#"imported-member1-legacy-r6tkw derived-legacy member1 ["http:8080"] ["10.10.0.9"]"#,
            r#"kubernetes kubernetes local ["https:21022"] ["192.0.2.10"]"#,
            r#"member1-headless-z4wpq headless member1 ["http:8080"] ["10.10.0.7"]"#,
            r#"member1-named-ggjch named member1 ["dns:5353", "http:8080", "dns-tcp:5353"] ["10.10.0.7"]"#,
            r#"member1-nowhere-dcgj9 nowhere member1 [] []"#,
            r#"member1-serve-4j6n5 serve member1 [":8080"] ["10.10.0.6"]"#,
            r#"member3-named-b7ktg named member3 [] []"#,
            r#"named-c7g5t named local [] []"#,
            r#"nowhere-rjq8d nowhere local [] []"#,
        ]
    );
}

#[test]
fn karmadas_services_are_read() {
    let text = include_str!("../fixtures/karmada/legacy-member2-services.yaml");
    let read: Vec<String> = objects(text)
        .into_iter()
        .map(|object| {
            let Object::Service(service) = object else { panic!("{object:?}") };
            assert_eq!((service.problems, service.opt_in), (vec![], OptIn::Unsaid));
            let ports: Vec<_> =
                service.ports.iter().map(|port| format!("{}:{}", port.name, port.port)).collect();
            format!("{} {} {:?} {ports:?}", service.key, service.created, service.cluster_ips)
        })
        .collect();
    assert_eq!(
        read,
        [
            r#"default/derived-legacy 1795431800 [10.13.255.29] ["http:80"]"#,
            r#"default/headless 1795431476 [] ["http:80"]"#,
            r#"default/kubernetes 1795431462 [10.13.0.1] ["https:443"]"#,
            r#"default/named 1795431475 [10.13.20.216] ["http:80", "dns:53", "dns-tcp:53"]"#,
            r#"default/nowhere 1795431476 [10.13.115.73] [":80"]"#,
        ]
    );
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
    assert_eq!(
        (slice.ports[0].name.as_str(), slice.ports[0].protocol),
        ("", mcs_proxy_ebpf::abi::Protocol::Tcp)
    );

    let nil_port = slice_of(patched_slice(&[("/ports/0/port", Value::Null)]));
    assert_eq!((nil_port.ports.len(), nil_port.problems), (1, vec![]));
    for nothing in
        [patched_slice(&[("/addressType", json!("FQDN"))]), patched_slice(&[("/metadata/labels", json!({}))])]
    {
        assert_eq!(manifests(nothing, "member2"), []);
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
        assert_eq!(service.malformed, Malformed { opt_in: malformed, algorithm: false });
        assert_eq!(service.problems.is_empty(), matches!(annotation, None | Some("true" | "false")));
    }
}

#[test]
fn algorithms() {
    for (value, expected, malformed) in [
        ("round-robin", Some(Algorithm::RoundRobin), false),
        ("random", Some(Algorithm::Random), false),
        ("maglev", None, true),
        ("roundrobin", None, true),
    ] {
        let service = service_of(patched_service(&[(ALGORITHM, json!(value))]));
        assert_eq!((service.algorithm, service.malformed.algorithm), (expected, malformed), "{value}");
        assert_eq!(service.problems.len(), usize::from(malformed));
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
            json!("local"),
            "metadata.annotations[mcs-proxy.io/clusters]",
            "not served",
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
fn what_is_not_of_its_type_is_unreadable_and_named_by_its_path() {
    for (document, field) in [
        (patched_service(&[("/spec/ports", json!("80"))]), "spec.ports"),
        (patched_service(&[("/spec/ports/0/port", json!("http"))]), "spec.ports[0].port"),
        (patched_service(&[("/spec/ports/0/port", json!(9_999_999_999_u64))]), "spec.ports[0].port"),
        (patched_service(&[(ENABLED, json!(true))]), "metadata.annotations.mcs-proxy.io/enabled"),
        (
            patched_service(&[("/metadata/creationTimestamp", json!("yesterday"))]),
            "metadata.creationTimestamp",
        ),
        (patched_service(&[("/spec", json!([1]))]), "spec"),
        (patched_slice(&[("/endpoints/0/addresses", json!("10.0.0.1"))]), "endpoints[0].addresses"),
        (patched_slice(&[("/endpoints", json!({"a": 1}))]), "endpoints"),
        (patched_slice(&[("/apiVersion", json!("discovery.k8s.io/v1beta1"))]), "apiVersion"),
    ] {
        match &manifests(document.clone(), "member2")[..] {
            [Manifest::Unreadable { key, problem, .. }] => {
                assert_eq!(problem.field, field, "{problem}");
                assert_eq!(key.namespace, "default");
                assert!(!problem.message.is_empty() && !problem.remedy.is_empty());
            }
            other => panic!("{document}: {other:?}"),
        }
    }
    let unquoted = manifests(patched_service(&[(ENABLED, json!(true))]), "member2");
    let Manifest::Unreadable { problem, .. } = &unquoted[0] else { panic!("{unquoted:?}") };
    assert!(problem.message.contains("in quotes"), "{problem}");
}

#[test]
fn a_list_holds_objects_and_other_kinds_are_passed_over() {
    let (service, slice) = (patched_service(&[]), patched_slice(&[]));
    let mut bare = service.clone();
    bare.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
    for (document, count) in [
        (Value::Null, 0),
        (json!({"kind": "Deployment", "metadata": {}}), 0),
        (json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "a"}}), 0),
        (json!({"kind": "List"}), 0),
        (json!({"kind": "List", "items": null}), 0),
        (json!({"kind": "List", "items": [service, {"kind": "Pod"}, slice]}), 2),
        (json!({"kind": "List", "items": [{"kind": "List", "items": [service]}]}), 1),
        (json!({"kind": "ServiceList", "items": [bare]}), 1),
    ] {
        let found = manifests(document.clone(), "member2");
        assert_eq!(found.len(), count, "{document}");
        assert!(found.iter().all(|manifest| matches!(manifest, Manifest::Object(_))));
    }
    for (document, at) in [
        (json!("text"), "kind"),
        (json!({}), "kind"),
        (json!([service]), "kind"),
        (json!({"kind": "List", "items": [{"kind": "Service"}]}), "items[0].metadata.name"),
        (json!({"kind": "List", "items": {}}), "items"),
        (json!({"kind": "Service", "metadata": {"name": 5}}), "metadata.name"),
    ] {
        match &manifests(document.clone(), "member2")[..] {
            [Manifest::Nameless { field, .. }] => assert_eq!(field, at),
            other => panic!("{document}: {other:?}"),
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "Service",
            "EndpointSlice",
            "List",
            "v1",
            "None",
            "10.0.0.1",
            "::1",
            "TCP",
            "IPv6"
        ])
        .prop_map(Value::from),
    ];
    let key = prop_oneof![
        ".{0,6}",
        prop::sample::select(vec![
            "kind",
            "metadata",
            "name",
            "namespace",
            "spec",
            "ports",
            "port",
            "endpoints",
            "addresses",
            "items",
            "clusterIP",
            "clusterIPs",
            "conditions",
            "addressType",
            "labels",
            "annotations",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All places in a document, as JSON pointers.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| pointers(item, &format!("{at}/{i}"), found));
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, item)| {
                pointers(item, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found)
            });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #![proptest_config(testing::cases(256))]

    #[test]
    fn arbitrary_json_never_panics(document in any_json()) {
        let _ = manifests(document, "member2");
    }

    #[test]
    fn a_sound_object_with_anything_anywhere_never_panics_and_nothing_senseless_gets_through(
        is_service: bool,
        places in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
    ) {
        let mut document = if is_service { patched_service(&[]) } else { patched_slice(&[]) };
        for (place, value) in places {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            *document.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
        }
        for manifest in manifests(document, "member2") {
            match manifest {
                Manifest::Object(Object::Service(service)) => {
                    prop_assert!(service.ports.iter().all(|port| port.port != 0));
                    prop_assert!(service.cluster_ips.iter().all(|ip| crate::model::rejection(*ip).is_none()));
                    prop_assert!(service.problems.len() <= 9);
                }
                Manifest::Object(Object::EndpointSlice(slice)) => {
                    prop_assert!(slice.ports.iter().all(|port| port.port != 0));
                    prop_assert!(!slice.service.is_empty());
                    prop_assert!(slice.problems.len() <= 9);
                }
                Manifest::Unreadable { problem, .. } => prop_assert!(!problem.message.is_empty()),
                Manifest::Nameless { field, message } => prop_assert!(!field.is_empty() && !message.is_empty()),
            }
        }
    }
}
