//! Versions of objects and lists: watches that end, versions that are forgotten, lists that are older than what is known, and
//! lists of which half arrives.

use crate::{
    relay::{Lists, Relay, gaps},
    stage::{SLICES, Stage},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, FABRIC, ServiceRow,
    client::{self, Connection},
    http,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

const RELAY_PORT: u16 = 6445;
const PATIENCE: Duration = Duration::from_secs(150);
const RESOURCE: &str = "endpointslices";

fn relay(stage: &Stage) -> Result<(Relay, String)> {
    let listen = SocketAddr::new(FABRIC.into(), RELAY_PORT);
    let relay = Relay::start(stage.world.fabric(), listen, stage.api.daemon_kubeconfig())?;
    Ok((relay, format!("http://{listen}")))
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What the maps hold of the one Service.
fn used(rows: &[ServiceRow]) -> BTreeSet<String> {
    let endpoints = rows.iter().filter(|row| row.name == "serve").flat_map(|row| &row.endpoints);
    endpoints.filter(|endpoint| endpoint.in_maps).map(|endpoint| endpoint.address.to_string()).collect()
}

fn addresses(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&address| address.to_owned()).collect()
}

fn wait(daemon: &mut Daemon, all: &[&str]) -> Result<()> {
    let all = addresses(all);
    daemon.wait_for_services(&format!("{all:?}"), |rows| used(rows) == all)
}

fn metric(stage: &Stage, name: &str) -> Result<f64> {
    let page = http::get(&stage.nodes[0].namespace, "127.0.0.1:10266".parse()?, "/metrics")?.body;
    let rows = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    rows.map(|(_, value)| Ok(value.parse::<f64>()?)).sum()
}

/// Watches end all the time: clients ask for a length (whatever `--min-request-timeout` of the API server says, which is for
/// those that do not), and go on from there.
#[test]
fn watches_that_end_by_themselves_lose_nothing_and_change_nothing() -> Result<()> {
    let stage = Stage::with_flags(&["--min-request-timeout", "1"])?;
    let (relay, server) = relay(&stage)?;
    relay.end_watches_after(1);
    stage.service("serve", "10.13.7.1", "random")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6", "10.10.0.7"])?;
    let mut daemon = stage.daemon_by(&server)?;
    wait(&mut daemon, &["10.10.0.6", "10.10.0.7"])?;

    let counted = |name: &str| metric(&stage, &format!("mcs_proxy_{name}"));
    let before = [counted("transactions_total")?, counted("source_events_total")?];
    let watches = || relay.asked(true, RESOURCE).len();
    let first = watches();
    until("five more watches", || Ok(watches() >= first + 5))?;
    ensure!([counted("transactions_total")?, counted("source_events_total")?] == before);

    // Each falls somewhere else between two watches.
    for last in 8..18 {
        let pods = ["10.10.0.6", &format!("10.10.0.{last}")];
        let slice: Value = {
            let endpoint = |address: &str| json!({"addresses": [address], "conditions": {"ready": true}});
            json!({"endpoints": pods.map(endpoint)})
        };
        stage.api.patch(&format!("{SLICES}/member1-serve-1"), &slice)?;
        wait(&mut daemon, &pods)?;
    }
    ensure!(
        counted("transactions_total")? == before[0] + 10.0,
        "{} and {before:?}",
        counted("transactions_total")?
    );
    for resource in ["services", RESOURCE, "nodes"] {
        ensure!(relay.asked(false, resource).len() == 1, "{resource} were listed anew");
    }
    Ok(())
}

/// A list is asked for without `resourceVersion`: the most recent state, which the API server must not answer from the past.
/// client-go's reflector, and so kube-proxy, asks for one that is not older than what it knows; it takes what comes for true, and
/// so do we, since versions could not be compared until Kubernetes 1.35 (KEP-5504). If something in between answers with what was
/// so once, the watch that begins there tells all that has happened since.
#[test]
fn a_list_that_is_older_than_what_is_known_is_made_good_by_the_watch_that_follows_it() -> Result<()> {
    let stage = Stage::new()?;
    let (relay, server) = relay(&stage)?;
    stage.service("serve", "10.13.7.1", "random")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6"])?;
    stage.import("member1-serve-2", "serve", &["10.10.0.7"])?;
    let mut daemon = stage.daemon_by(&server)?;
    wait(&mut daemon, &["10.10.0.6", "10.10.0.7"])?;
    stage.import("member1-serve-3", "serve", &["10.10.0.8"])?;
    stage.api.delete(&format!("{SLICES}/member1-serve-2"))?;
    wait(&mut daemon, &["10.10.0.6", "10.10.0.8"])?;

    relay.treat_lists(RESOURCE, Lists::Former);
    relay.forget(RESOURCE);
    until("another list", || Ok(relay.asked(false, RESOURCE).len() == 2))?;
    // What comes after it is seen after what came before it.
    stage.import("member1-serve-4", "serve", &["10.10.0.9"])?;
    daemon.wait_for_services("the last slice", |rows| used(rows).contains("10.10.0.9"))?;
    let now = addresses(&["10.10.0.6", "10.10.0.8", "10.10.0.9"]);
    ensure!(used(&daemon.services()?) == now, "{:?}", used(&daemon.services()?));
    let lists = relay.asked(false, RESOURCE);
    ensure!(
        lists.len() == 2 && lists.iter().all(|list| !list.query.contains("resourceVersion")),
        "{lists:?}"
    );
    Ok(())
}

#[test]
fn a_list_of_which_half_arrives_is_tried_ever_more_seldom_and_stops_nothing_that_works() -> Result<()> {
    let stage = Stage::new()?;
    let (relay, server) = relay(&stage)?;
    let _pod = stage.world.add_serving_pod(&stage.nodes[0], "serve", &["10.12.1.6"])?;
    let client = stage.world.add_pod(&stage.nodes[0], "client", &["10.12.1.9"])?;
    stage.service("serve", "10.13.7.1", "round-robin")?;
    stage.import("member1-serve-1", "serve", &["10.12.1.6"])?;
    let mut daemon = stage.daemon_by(&server)?;
    wait(&mut daemon, &["10.12.1.6"])?;
    let vip: SocketAddr = "10.13.7.1:80".parse()?;
    let mut connection = Connection::open(&client.namespace, vip)?;
    connection.ask()?;

    relay.treat_lists(RESOURCE, Lists::Half);
    relay.forget(RESOURCE);
    daemon.wait_for_warning(&format!("EndpointSlices: the API server at {server}/"))?;
    daemon.wait_for_warning("what was last known stays, trying again")?;
    stage.import("member1-serve-2", "serve", &["10.12.1.7"])?;
    stage.service("other", "10.13.7.2", "random")?;
    daemon.wait_for_services("another kind, which arrives whole", |rows| rows.len() == 2)?;
    let failed = daemon.status()?;
    let line = &failed["lines"].as_array().context("no lines")?.iter().find(|it| it["part"] == "source");
    let line = line.context("no line about the source")?;
    ensure!(
        line["level"] == "failed" && line["says"].as_str().is_some_and(|it| it.contains(&server)),
        "{line}"
    );

    // Beside the first list, which was whole.
    let attempts = || relay.asked(false, RESOURCE).split_off(1);
    until("three attempts", || Ok(attempts().len() >= 3))?;
    let waits = gaps(&attempts());
    // After the refused watch 0.8 s at least, and twice as long after each list.
    let least = [1600, 3200].map(Duration::from_millis);
    ensure!(waits.iter().zip(least).all(|(wait, least)| *wait >= least), "{waits:?}");
    client::http(&client.namespace, vip, 10)?;
    connection.ask()?;
    ensure!(used(&daemon.services()?) == addresses(&["10.12.1.6"]), "half a list was taken for all");

    relay.treat_lists(RESOURCE, Lists::Pass);
    wait(&mut daemon, &["10.12.1.6", "10.12.1.7"])?;
    Ok(())
}

/// Who restores a backup of etcd puts the versions back, too: what was watched lies in the future then.
#[test]
fn an_api_server_whose_storage_was_put_back_is_followed_from_there() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.service("serve", "10.13.7.1", "random")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6"])?;
    let mut daemon = stage.daemon(0)?;
    daemon.expect_outages();
    wait(&mut daemon, &["10.10.0.6"])?;
    stage.api.restart_with_storage(false)?;
    for number in 2..30 {
        stage.import(&format!("member1-serve-{number}"), "serve", &[&format!("10.10.1.{number}")])?;
    }
    daemon.wait_for_services("all slices", |rows| used(rows).len() == 29)?;

    stage.api.restart_with_storage(true)?;
    wait(&mut daemon, &["10.10.0.6"])?;
    stage.import("member1-serve-9", "serve", &["10.10.0.9"])?;
    wait(&mut daemon, &["10.10.0.6", "10.10.0.9"])?;
    Ok(())
}
