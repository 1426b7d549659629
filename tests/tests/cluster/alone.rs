//! No kube-proxy: names, Services and the API server's own address are mcs-proxy's to serve, or nobody's.

use super::{installed::Installed, installing::called_evenly};
use mcs_proxy_tests::cluster::{Cluster, ClusterOptions};

#[test]
fn without_a_kube_proxy_the_daemon_starts_past_its_services_and_pods_are_served_by_name() {
    let options = ClusterOptions { nodes: 1, dns: true, ..Default::default() };
    let (host, port) = Cluster::API_SERVER;
    let installed =
        Installed::start_on(options, &format!(",apiServer.host={host},apiServer.port={port}")).unwrap();
    installed.wait_until_served().unwrap();
    called_evenly(&installed, "client", "serve.default.svc.cluster.local:80").unwrap();
    called_evenly(&installed, "client", &installed.vip().unwrap().to_string()).unwrap();
}
