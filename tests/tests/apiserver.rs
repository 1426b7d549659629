//! From a real API server, whose own controller writes the local slices, through the daemon to packets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use anyhow::Result;
use mcs_proxy_tests::{
    Beneath, Daemon, Pod, ServiceRow, World,
    api::ApiServer,
    client::{self, Connection, Tally},
    karmada::{Endpoint, Port, Service, Slice},
};
use serde_json::{Value, json};
use std::net::SocketAddr;

const REMOTE: &str = "10.10.0.6";
const LOCAL: &str = "10.12.0.6";
const VIP: &str = "10.13.181.116";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

fn vip() -> SocketAddr {
    SocketAddr::new(VIP.parse().unwrap(), 80)
}

fn split(client: &Pod, requests: u32) -> Result<Tally> {
    Ok(client::tally(&client::http(&client.namespace, vip(), requests)?))
}

fn tally(shares: &[(&str, u32)]) -> Tally {
    shares.iter().map(|(pod, share)| (pod.parse().unwrap(), *share)).collect()
}

fn wait(daemon: &mut Daemon, endpoints: usize) -> Result<()> {
    daemon.wait_for_services(&format!("{endpoints} endpoints"), |rows| {
        let in_maps = |row: &ServiceRow| row.endpoints.iter().filter(|endpoint| endpoint.in_maps).count();
        rows.iter().any(|row| row.name == "serve" && in_maps(row) == endpoints)
    })
}

/// What a kubelet says of a pod.
fn status(ready: bool) -> Value {
    json!({ "status": {
        "phase": "Running",
        "podIP": LOCAL,
        "podIPs": [{ "ip": LOCAL }],
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
    }})
}

fn enter_node_and_pod(api: &ApiServer) -> Result<()> {
    api.create(
        "/api/v1/nodes",
        "{apiVersion: v1, kind: Node, metadata: {name: member2-node-1, labels: {topology.kubernetes.io/zone: zone-b}}}",
    )?;
    api.create(
        PODS,
        "{apiVersion: v1, kind: Pod, metadata: {name: serve-2, labels: {app: serve}}, \
         spec: {nodeName: member2-node-1, containers: [{name: serve, image: serve}]}}",
    )?;
    api.patch(&format!("{PODS}/serve-2/status"), &status(true))
}

/// The story's walk, with the API server's own word for everything.
#[test]
fn a_real_api_server_steers_the_packets() -> Result<()> {
    let mut world = World::new()?;
    let member1 = world.add_node("member1", "member1-node-1", &["10.10.0.0/16"])?;
    let member2 = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let _remote = world.add_serving_pod(&member1, "serve-1", &[REMOTE])?;
    let _local = world.add_serving_pod(&member2, "serve-2", &[LOCAL])?;
    let client = world.add_pod(&member2, "client", &["10.12.0.9"])?;
    let mut api = ApiServer::start(&world, "10.13.0.0/16")?;
    let beneath = Beneath::new(&member2.namespace, vip(), &[LOCAL.parse()?])?;

    // The import is Karmada's, the local slice is the work of the controller.
    let imported = Endpoint::new(REMOTE, "member1-node-1", "serve-1")?;
    api.create(
        SLICES,
        &Slice::new("member1-serve-bcfd6", "serve", "member2", "member1", &[imported]).yaml(),
    )?;
    let service = Service::new("serve", "member2", &[VIP], &[Port::new("", "TCP", 80)])?;
    api.create(SERVICES, &service.annotated("enabled", "true").yaml())?;
    enter_node_and_pod(&api)?;

    api.grant()?;
    let kubeconfig = api.daemon_kubeconfig().display().to_string();
    let mut daemon = Daemon::start_with(&member2, &["--source", "kubernetes", "--kubeconfig", &kubeconfig])?;
    daemon.expect_outages();
    wait(&mut daemon, 2)?;
    let shares = split(&client, 29)?;
    assert!(
        shares == tally(&[(REMOTE, 15), (LOCAL, 14)]) || shares == tally(&[(REMOTE, 14), (LOCAL, 15)]),
        "{shares:?}"
    );

    // A pod that is not ready, and is again.
    api.patch(&format!("{PODS}/serve-2/status"), &status(false))?;
    wait(&mut daemon, 1)?;
    assert_eq!(split(&client, 5)?, tally(&[(REMOTE, 5)]));
    api.patch(&format!("{PODS}/serve-2/status"), &status(true))?;
    wait(&mut daemon, 2)?;

    // The server is away: nothing changes. It is back: the daemon follows.
    let mut connection = Connection::open(&client.namespace, vip())?;
    let pod = connection.ask()?;
    api.stop_server();
    assert_eq!(split(&client, 10)?, tally(&[(REMOTE, 5), (LOCAL, 5)]));
    api.start_server()?;
    api.delete(&format!("{SLICES}/member1-serve-bcfd6"))?;
    wait(&mut daemon, 1)?;
    assert_eq!(split(&client, 5)?, tally(&[(LOCAL, 5)]));
    assert_eq!(connection.ask()?, pod);

    // Opting out by taking the annotation away.
    assert_eq!(beneath.served()?, 0);
    api.patch(
        &format!("{SERVICES}/serve"),
        &json!({ "metadata": { "annotations": { "mcs-proxy.io/enabled": null } } }),
    )?;
    daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
    assert_eq!(split(&client, 5)?, tally(&[(LOCAL, 5)]));
    assert_eq!(beneath.served()?, 5);
    assert_eq!(connection.ask()?, pod);
    Ok(())
}
