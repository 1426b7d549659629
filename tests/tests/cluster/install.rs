use mcs_proxy_tests::cluster::{Cluster, ClusterOptions};

#[test]
fn starts() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    println!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"]).unwrap());
    cluster.apply(include_str!("../../../deploy/examples/cluster/serve.yaml")).unwrap();
    cluster.wait_for_rollout("default", "deployment/serve").unwrap();
    println!("{}", cluster.kubectl(&["get", "pods", "-o", "wide"]).unwrap());
}
