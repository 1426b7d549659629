//! The Services: all of them lead to the same pod, so that whichever comes first or last in a proxy's rules may be called.

use crate::{
    bulk::{Bulk, Request},
    plan::Size,
};
use anyhow::Result;
use mcs_proxy_tests::{POD_PORT, World, api::ApiServer};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What the Services' addresses are taken from.
pub(crate) const SERVICE_RANGE: &str = "10.64.0.0/12";
pub(crate) const POD_RANGE: &str = "10.12.0.0/16";
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 12, 0, 9);
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 10);
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 12, 1, 1);
const PORT: u16 = 80;
/// More than any size has.
const MOST_SERVICES: u32 = 100_000;
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// The server's addresses: those of the endpoints, then one that is none.
pub(crate) const ENDPOINTS: u32 = 10;

/// Service `number`, from 0.
pub(crate) fn vip(number: u32) -> SocketAddr {
    SocketAddr::new(plus(FIRST_VIP, number), PORT)
}

/// Endpoint `number`, from 0 on; [`ENDPOINTS`]: the address that no Service has.
pub(crate) fn pod(number: u32) -> SocketAddr {
    SocketAddr::new(plus(FIRST_POD, number), POD_PORT)
}

fn plus(first: Ipv4Addr, number: u32) -> IpAddr {
    Ipv4Addr::from_bits(first.to_bits() + number).into()
}

pub(crate) fn create(world: &World, api: &ApiServer, size: &Size) -> Result<()> {
    let endpoints: Vec<Value> = (0..size.endpoints).map(endpoint).collect();
    let requests = (0..size.services).map(|number| ("POST", SLICES.to_owned(), slice(number, &endpoints)));
    api.store_services(&(0..size.services).map(service).collect::<Vec<_>>())?;
    Bulk::connect(world.fabric(), api).send(requests.collect())
}

/// A Service for iperf3, by this port there as well as at the first endpoint.
pub(crate) fn iperf(port: u16) -> Vec<Request> {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "iperf" },
        "spec": { "clusterIP": iperf_vip(port).ip(), "ports": [{ "port": port, "targetPort": port }] },
    });
    let mut slice = slice(0, &[endpoint(0)]);
    slice["metadata"]["name"] = "iperf-abcde".into();
    slice["metadata"]["labels"]["kubernetes.io/service-name"] = "iperf".into();
    slice["ports"][0]["port"] = port.into();
    vec![("POST", SERVICES.to_owned(), service), ("POST", SLICES.to_owned(), slice)]
}

pub(crate) fn iperf_vip(port: u16) -> SocketAddr {
    SocketAddr::new(plus(FIRST_VIP, MOST_SERVICES), port)
}

/// As the API server would store it.
fn service(number: u32) -> Value {
    let vip = vip(number).ip();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": format!("s{number}"),
            "namespace": "default",
            "uid": format!("5e000000-0000-4000-8000-{number:012x}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": vip,
            "clusterIPs": [vip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{ "protocol": "TCP", "port": PORT, "targetPort": POD_PORT }],
        },
        "status": { "loadBalancer": {} },
    })
}

fn endpoint(number: u32) -> Value {
    json!({
        "addresses": [pod(number).ip()],
        "conditions": { "ready": true, "serving": true, "terminating": false },
    })
}

fn slice(number: u32, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("s{number}-abcde"),
            "labels": {
                "kubernetes.io/service-name": format!("s{number}"),
                "endpointslice.kubernetes.io/managed-by": "mcs-proxy-bench",
            },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": POD_PORT, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}
