//! Objects to decode.

mod arbitrary;
mod importers;
mod karmada;
mod karmada_seen;
mod manifests;
mod values;

use serde_json::{Value, json};

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
    let parent = document.pointer_mut(parent).unwrap();
    if let Value::Array(items) = parent {
        items[leaf.parse::<usize>().unwrap()] = value;
    } else {
        parent[leaf.replace("~1", "/")] = value;
    }
}

const ENABLED: &str = "/metadata/annotations/mcs-proxy.io~1enabled";
const ALGORITHM: &str = "/metadata/annotations/mcs-proxy.io~1algorithm";
const PROXY_NAME: &str = "/metadata/labels/service.kubernetes.io~1service-proxy-name";
