use crate::stage::{Stage, address, until, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{Daemon, World, client, http};
use serde_json::Value;
use std::{fs, net::TcpListener};

fn json(body: &str) -> Result<Value> {
    serde_json::from_str(body).with_context(|| body.to_owned())
}

#[test]
fn a_daemon_that_is_in_step_is_live_ready_and_healthy_on_loopback_alone() -> Result<()> {
    let stage = Stage::new(&[])?;
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = stage.get(path)?;
        let health = json(&answer.body)?;
        ensure!(answer.status == 200 && answer.content_type == "application/json", "{path}: {answer:?}");
        ensure!(health["status"] == "ok" && health["because"].is_null(), "{path}: {health}");
        let ages = ["last_sync_seconds", "last_turn_seconds"].map(|age| health[age].as_f64());
        ensure!(ages.iter().all(|age| age.is_some_and(|age| (0.0..60.0).contains(&age))), "{path}: {health}");
    }
    let elsewhere = (stage.node.address, address().port()).into();
    ensure!(http::get(&stage.node.namespace, elsewhere, "/livez").is_err(), "it listens beyond loopback");
    ensure!(stage.get("/")?.status == 404);
    ensure!(http::request(&stage.node.namespace, address(), "POST", "/metrics")?.status == 405);
    Ok(())
}

#[test]
fn a_daemon_that_waits_for_its_source_is_live_and_not_ready() -> Result<()> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let kubeconfig = world.folder("kube")?.join("kubeconfig");
    fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: nobody, \
         clusters: [{name: nobody, cluster: {server: 'https://172.18.0.254:6443'}}], \
         users: [{name: nobody, user: {token: none}}], \
         contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]}",
    )?;
    let mut daemon = Daemon::start_without_sync(&node, &["--kubeconfig", &kubeconfig.display().to_string()])?;
    daemon.wait_for_log("serving /metrics")?;
    ensure!(http::get(&node.namespace, address(), "/livez")?.status == 200);
    let mut said = String::new();
    until("it says what it waits for", || {
        let ready = http::get(&node.namespace, address(), "/readyz")?;
        ensure!(ready.status == 503, "{ready:?}");
        said = json(&ready.body)?["because"].as_str().context("no reason")?.to_owned();
        Ok(said.contains("Service, EndpointSlice"))
    })?;
    daemon.wait_for_warning("172.18.0.254:6443")?;
    let page = http::get(&node.namespace, address(), "/metrics")?.body;
    ensure!(page.contains("mcs_proxy_synced 0"), "{page}");
    until("the source is told of as unreachable", || {
        let page = http::get(&node.namespace, address(), "/metrics")?.body;
        Ok(page.contains("mcs_proxy_source_up{kind=\"Service\"} 0"))
    })
}

#[test]
fn an_address_that_is_taken_stops_no_traffic_and_is_served_once_it_is_free() -> Result<()> {
    let mut stage = Stage::new(&["--metrics-bind-address", "127.0.0.1:10300"])?;
    stage.daemon.stop();
    let taken = stage.node.namespace.run(|| TcpListener::bind("127.0.0.1:10300"))?;
    stage.daemon.launch()?;
    stage.daemon.wait_for_warning("127.0.0.1:10300")?;
    ensure!(client::http(&stage.client.namespace, vip(), 2)?.len() == 2);
    drop(taken);
    stage.daemon.wait_for_log("serving /metrics")?;
    ensure!(http::get(&stage.node.namespace, "127.0.0.1:10300".parse()?, "/readyz")?.status == 200);
    Ok(())
}
