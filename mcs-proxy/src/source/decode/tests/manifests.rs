use super::{ENABLED, patched_service, patched_slice};
use crate::source::decode::{Manifest, manifests};
use serde_json::{Value, json};

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
                assert_eq!(&*key.namespace, "default");
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
