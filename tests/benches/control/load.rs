//! The objects, and how they get into the API server.

use crate::bulk::Bulk;
use anyhow::Result;
use mcs_proxy_tests::{Namespace, api::ApiServer};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

pub(crate) struct Objects {
    bulk: Bulk,
}

impl Objects {
    pub(crate) fn connect(namespace: &Namespace, api: &ApiServer) -> Self {
        Self { bulk: Bulk::connect(namespace, api) }
    }

    /// Services `s0`, `s1`, …, with their slices.
    pub(crate) fn create(&self, services: u32) -> Result<()> {
        let requests = (0..services).flat_map(|service| {
            let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
            let mut all =
                vec![("POST", "/api/v1/namespaces/default/services".to_owned(), self::service(service))];
            all.extend((0..3).map(|part| ("POST", slices.to_owned(), slice(service, part, 0))));
            all
        });
        self.bulk.send(requests.collect())
    }

    /// Another last address in the first import of a Service, differing from the one before.
    pub(crate) fn change(&self, service: u32, round: u32) -> Result<()> {
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/".to_owned();
        let body = json!({ "endpoints": slice(service, 1, 1 + round % 63)["endpoints"] });
        self.bulk.send(vec![("PATCH", path + &name(service, 1), body)])
    }
}

fn service(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("s{number}") },
        "spec": { "clusterIP": address([10, 64, 0, 10], number), "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

fn name(service: u32, part: u32) -> String {
    if part == 0 { format!("s{service}-abcde") } else { format!("member1-s{service}-{part}bcde") }
}

/// Part 0 is local, the others are Karmada's imports. `round` moves the last address.
fn slice(service: u32, part: u32, round: u32) -> Value {
    let count = if part == 0 { 2 } else { 4 };
    let first = if part == 0 { [10, 12, 0, 0] } else { [10, 96, 0, 0] };
    let endpoints = (0..count).map(|i| {
        let mut number = (service * 3 + part) * 4 + i;
        if i == count - 1 {
            number += round << 18;
        }
        json!({
            "addresses": [address(first, number)],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("member{}-node-{}", if part == 0 { 2 } else { 1 }, number % 100),
            "zone": "zone-a",
        })
    });
    let mut labels = json!({ "kubernetes.io/service-name": format!("s{service}") });
    let managed_by = "endpointslice.kubernetes.io/managed-by";
    let mut annotations = json!({});
    if part == 0 {
        labels[managed_by] = "mcs-proxy-bench".into();
    } else {
        labels[managed_by] = "endpointslice-dispatch-controller.karmada.io".into();
        annotations["endpointslice.karmada.io/provision-cluster"] = "member1".into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name(service, part), "labels": labels, "annotations": annotations },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

fn address(first: [u8; 4], offset: u32) -> String {
    Ipv4Addr::from_bits(Ipv4Addr::from(first).to_bits() + offset).to_string()
}
