//! A daemon that starts while nobody tells it anything: what it finds in the maps is as good as on the day before.

use crate::{
    bad_days::start,
    stage::{SERVICES, SLICES, Stage},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, Namespace, ServiceRow,
    client::{self, Connection},
    http,
    proxy::Mode,
};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

const PODS: [&str; 2] = ["10.12.1.6", "10.12.1.7"];

/// What `/readyz` says: its status, and its body.
fn ready(node: &Namespace) -> Result<(u16, Value)> {
    let answer = http::get(node, "127.0.0.1:10266".parse()?, "/readyz")?;
    Ok((answer.status, serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?))
}

/// The line of `mcs-proxy status` about the source.
fn source(daemon: &Daemon) -> Result<(String, String)> {
    let status = daemon.status()?;
    let lines = status["lines"].as_array().context("no lines")?;
    let line = lines.iter().find(|line| line["part"] == "source").context("no line about the source")?;
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    Ok((text("level"), text("says")))
}

/// So many more connections take turns from where the last ones left off.
fn take_turns(client: &Namespace, vip: SocketAddr, last: &mut Option<IpAddr>) -> Result<()> {
    for pod in client::http(client, vip, 3)? {
        ensure!(*last != Some(pod), "{pod} twice in a row");
        *last = Some(pod);
    }
    Ok(())
}

fn endpoints(rows: &[ServiceRow]) -> Vec<(String, Vec<IpAddr>)> {
    let used = |row: &ServiceRow| row.endpoints.iter().filter(|it| it.in_maps).map(|it| it.address).collect();
    rows.iter().map(|row| (row.name.clone(), used(row))).collect()
}

#[test]
fn a_daemon_that_is_killed_and_starts_without_the_api_server_serves_what_is_pinned_until_it_hears_all()
-> Result<()> {
    let stage = Stage::new()?;
    let _pods = PODS
        .iter()
        .map(|pod| stage.world.add_serving_pod(&stage.nodes[0], &format!("serve-{}", &pod[8..]), &[pod]))
        .collect::<Result<Vec<_>>>()?;
    let client = stage.world.add_pod(&stage.nodes[0], "client", &["10.12.1.9"])?;
    for (name, ip) in [("serve", "10.13.7.1"), ("goes", "10.13.7.2")] {
        stage.service(name, ip, "round-robin")?;
        stage.import(&format!("member1-{name}-1"), name, &PODS)?;
    }
    let (proxy, mut daemon) = start(&stage)?;
    daemon.wait_for_services("both Services", |rows| {
        rows.len() == 2 && endpoints(rows).iter().all(|(_, used)| used.len() == 2)
    })?;
    let node = &stage.nodes[0].namespace;
    ensure!(ready(node)?.0 == 200);
    let before = endpoints(&daemon.services()?);
    let vip: SocketAddr = "10.13.7.1:80".parse()?;
    let (mut connection, mut last) = (Connection::open(&client.namespace, vip)?, None);
    let pod = connection.ask()?;
    take_turns(&client.namespace, vip, &mut last)?;

    proxy.set(Mode::Refuse);
    daemon.crash()?;
    stage.api.delete(&format!("{SERVICES}/goes"))?;
    stage.api.delete(&format!("{SLICES}/member1-goes-1"))?;
    daemon.launch_without_sync()?;
    daemon.wait_for_warning("nothing is known yet")?;
    let (level, says) = source(&daemon)?;
    ensure!(level == "failed" && says.contains("not in step since the daemon started"), "{level}: {says}");
    let services = daemon.status()?["sources"][0].clone();
    ensure!(services["synced"] == false && services["trouble_seconds"].is_u64(), "{services}");
    let (code, body) = ready(node)?;
    ensure!(code == 503 && body["not_synced_seconds"].as_f64().is_some_and(|it| it > 0.0), "{body}");
    ensure!(body["because"].as_str().is_some_and(|it| it.contains("is served until then")), "{body}");

    // All goes on: what is open, whose turn it is, and pods that come now.
    ensure!(endpoints(&daemon.services()?) == before, "something was swept");
    ensure!(connection.ask()? == pod, "an open connection has moved");
    take_turns(&client.namespace, vip, &mut last)?;
    let late = stage.world.add_pod(&stage.nodes[0], "late", &["10.12.1.10"])?;
    daemon.wait_for_log("attached interface=\"vethlate\"")?;
    take_turns(&late.namespace, vip, &mut last)?;
    client::http(&late.namespace, "10.13.7.2:80".parse()?, 2)?;

    proxy.set(Mode::Pass);
    daemon.wait_for_log("synced")?;
    daemon.wait_for_services("the one Service that is left", |rows| rows.len() == 1)?;
    ensure!(connection.ask()? == pod, "an open connection has moved");
    take_turns(&client.namespace, vip, &mut last)?;
    let (code, body) = ready(node)?;
    ensure!(code == 200 && body["not_synced_seconds"].is_null(), "{body}");
    Ok(())
}
