//! A ServiceImport without a Service derived from it: its addresses are frontends of their own.

use crate::stage::{PODS, PODS_V6, Stage};
use anyhow::{Result, ensure};
use mcs_proxy_tests::client::{self, Tally};
use std::net::SocketAddr;

const VIP: &str = "243.0.0.9";
const VIP_V6: &str = "fd43::9";
const IMPORT: &str = r#"apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata:
  name: imported
  namespace: default
  annotations: {mcs-proxy.io/enabled: "true"}
spec:
  type: ClusterSetIP
  ips: [243.0.0.9, "fd43::9"]
  ports:
  - {name: http, port: 80, protocol: TCP}
  - {name: echo, port: 80, protocol: UDP}
"#;

/// A slice as the MCS API has it: no Service's, but the import's.
fn slice(cluster: &str, address: &str) -> (String, String) {
    let (family, suffix) = if address.contains(':') { ("IPv6", "v6") } else { ("IPv4", "v4") };
    let name = format!("imported-{cluster}-{suffix}");
    let text = format!(
        r#"apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: default
  labels:
    multicluster.kubernetes.io/service-name: imported
    multicluster.kubernetes.io/source-cluster: {cluster}
addressType: {family}
endpoints:
- addresses: ["{address}"]
ports:
- {{name: http, port: 8080, protocol: TCP}}
- {{name: echo, port: 8080, protocol: UDP}}
"#
    );
    (name, text)
}

fn both(pods: [&str; 2]) -> Tally {
    pods.iter().map(|pod| (pod.parse().unwrap(), 4)).collect()
}

#[test]
fn an_import_that_has_no_service_is_served_at_its_own_addresses_over_both_families() -> Result<()> {
    let arguments = ["--serviceimport-cidrs", "243.0.0.0/8,fd43::/64"];
    let mut stage = Stage::with(|service| service, &arguments)?;
    for pods in [PODS, PODS_V6] {
        for (cluster, pod) in ["member1", "member2"].into_iter().zip(pods) {
            let (name, text) = slice(cluster, pod);
            stage.manifests.write(&name, &text)?;
        }
    }
    stage.manifests.write("import", IMPORT)?;
    // Named last: names are written after the maps.
    stage.daemon.wait_for_services(
        "the import's four frontends with two endpoints each, by its name",
        |rows| {
            let full = rows
                .iter()
                .filter(|row| row.endpoints.iter().filter(|endpoint| endpoint.in_maps).count() == 2);
            full.filter(|row| row.name == "serviceimport/imported").count() == 4
        },
    )?;

    for (vip, pods) in [(VIP, PODS), (VIP_V6, PODS_V6)] {
        let vip = SocketAddr::new(vip.parse()?, 80);
        ensure!(client::tally(&client::http(&stage.client.namespace, vip, 8)?) == both(pods), "TCP to {vip}");
        ensure!(client::tally(&client::udp(&stage.client.namespace, vip, 8)?) == both(pods), "UDP to {vip}");
    }
    ensure!(stage.flows()? == 32);

    stage.manifests.remove("import")?;
    stage.daemon.wait_for_services("no frontend", <[_]>::is_empty)
}
