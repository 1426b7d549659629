//! The Services: each has a slice of ten endpoints, and no two share one.

use crate::bulk::Bulk;
use anyhow::Result;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// What the Services' addresses are taken from.
pub(crate) const SERVICE_RANGE: &str = "10.64.0.0/12";
pub(crate) const POD_RANGE: &str = "10.96.0.0/11";
pub(crate) const PORT: u16 = 80;
pub(crate) const POD_PORT: u16 = 8080;
/// Of each Service.
pub(crate) const ENDPOINTS: u32 = 10;
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 10);
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// What a change adds to the address of the last endpoint: more than there are endpoints.
const CHANGE: u32 = 1 << 17;
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

pub(crate) fn name(service: u32) -> String {
    format!("s{service}")
}

pub(crate) fn vip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_VIP.to_bits() + service)
}

/// After so many changes of the Service.
pub(crate) fn endpoints(service: u32, changes: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..ENDPOINTS).map(move |number| {
        let moved = if number == ENDPOINTS - 1 { changes * CHANGE } else { 0 };
        Ipv4Addr::from_bits(FIRST_POD.to_bits() + service * ENDPOINTS + number + moved)
    })
}

pub(crate) fn create(bulk: &Bulk, services: u32) -> Result<()> {
    let requests = (0..services).flat_map(|service| {
        let services = "/api/v1/namespaces/default/services".to_owned();
        [("POST", services, self::service(service)), ("POST", SLICES.to_owned(), slice(service))]
    });
    bulk.send(requests.collect())
}

/// Another last endpoint for a Service.
pub(crate) fn change(bulk: &Bulk, service: u32, changes: u32) -> Result<()> {
    let body = json!({ "endpoints": endpoint_values(service, changes) });
    bulk.send(vec![("PATCH", format!("{SLICES}/{}-abcde", name(service)), body)])
}

fn service(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name(number) },
        "spec": { "clusterIP": vip(number), "ports": [{ "port": PORT, "targetPort": POD_PORT }] },
    })
}

fn slice(service: u32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-abcde", name(service)),
            "labels": {
                "kubernetes.io/service-name": name(service),
                "endpointslice.kubernetes.io/managed-by": "mcs-proxy-bench",
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": POD_PORT, "protocol": "TCP" }],
        "endpoints": endpoint_values(service, 0),
    })
}

fn endpoint_values(service: u32, changes: u32) -> Vec<Value> {
    let endpoint = |address: Ipv4Addr| {
        json!({
            "addresses": [address],
            "conditions": { "ready": true, "serving": true, "terminating": false },
        })
    };
    endpoints(service, changes).map(endpoint).collect()
}
