use super::{patched_service, patched_slice};
use crate::{
    model::{rejection, testing},
    source::{
        Object,
        decode::{Manifest, manifests},
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

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

fn sound(kind: &str) -> Value {
    let (version, content) = match kind {
        "ServiceImport" => (
            "multicluster.x-k8s.io/v1beta1",
            json!({"type": "ClusterSetIP", "ips": ["243.0.0.9"], "ports": [{"name": "http", "port": 80}]}),
        ),
        "Node" => ("v1", json!({"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]})),
        _ => ("v1", json!({"mode": "active", "member1": "{state: drain, cidrs: [10.10.0.0/16]}"})),
    };
    json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"name": "a", "namespace": "default", "annotations": {"mcs-proxy.io/enabled": "true"}},
        "spec": content, "status": content, "data": content,
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
                pointers(item, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
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
        kind in 0..5_usize,
        places in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
    ) {
        let mut document = match kind {
            0 => patched_service(&[]),
            1 => patched_slice(&[]),
            2 => sound("ServiceImport"),
            3 => sound("Node"),
            _ => sound("ConfigMap"),
        };
        for (place, value) in places {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            *document.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
        }
        for manifest in manifests(document, "member2") {
            match manifest {
                Manifest::Object(Object::Service(service)) => {
                    prop_assert!(service.ports.iter().all(|port| port.port != 0));
                    prop_assert!(service.cluster_ips.iter().all(|ip| rejection(*ip).is_none()));
                    prop_assert!(service.problems.len() <= 9);
                }
                Manifest::Object(Object::EndpointSlice(slice)) => {
                    prop_assert!(slice.ports.iter().all(|port| port.port != 0));
                    prop_assert!(!slice.service.is_empty() || slice.import.is_some());
                    prop_assert!(slice.problems.len() <= 9);
                }
                Manifest::Object(Object::ServiceImport(import)) => {
                    prop_assert!(import.service.ports.iter().all(|port| port.port != 0));
                    prop_assert!(import.service.cluster_ips.iter().all(|ip| rejection(*ip).is_none()));
                    prop_assert!(import.problems.len() <= 9);
                }
                Manifest::Object(Object::Node(node)) => prop_assert!(node.problems.len() <= 9),
                Manifest::Object(Object::Settings(settings)) => prop_assert!(settings.problems.len() <= 9),
                Manifest::Unreadable { problem, .. } => prop_assert!(!problem.message.is_empty()),
                Manifest::Nameless { field, message } => prop_assert!(!field.is_empty() && !message.is_empty()),
            }
        }
    }

    /// Of every kind and version that is read.
    #[test]
    fn whatever_is_wrong_with_an_object_is_told_by_its_field_and_its_neighbours_are_as_if_alone(
        kind in 0..6_usize,
        places in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
    ) {
        let mut document = match kind {
            0 => patched_service(&[]),
            1 => patched_slice(&[]),
            2 | 3 => sound("ServiceImport"),
            4 => sound("Node"),
            _ => sound("ConfigMap"),
        };
        if kind == 3 {
            document["apiVersion"] = "multicluster.x-k8s.io/v1alpha1".into();
        }
        for (place, value) in places {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            *document.pointer_mut(&all[place.index(all.len())]).unwrap() = value;
        }
        let neighbours = [patched_service(&[]), patched_slice(&[])];
        let list = json!({
            "apiVersion": "v1", "kind": "List", "items": [&neighbours[0], document, &neighbours[1]],
        });
        let found = manifests(list, "member2");
        let [first, last] = neighbours.map(|neighbour| manifests(neighbour, "member2"));
        prop_assert_eq!(&found[..1], &first[..]);
        prop_assert_eq!(&found[found.len() - 1..], &last[..]);
        for manifest in &found {
            let problems = match manifest {
                Manifest::Object(object) => object.problems().clone(),
                Manifest::Unreadable { problem, .. } => vec![problem.clone()],
                Manifest::Nameless { field, message } => {
                    prop_assert!(field.starts_with("items[1]") && !message.is_empty(), "{field}");
                    continue;
                }
            };
            for problem in problems {
                prop_assert!(!problem.object.to_string().contains('\n'), "{problem}");
                prop_assert!(!problem.field.is_empty() && !problem.message.is_empty(), "{problem}");
            }
        }
    }
}
