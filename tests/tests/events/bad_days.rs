//! An API server that cannot be reached, or of which only half arrives.

use crate::stage::{API_PORT, SERVICES, Stage};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    Daemon, FABRIC, ServiceRow,
    proxy::{Mode, Proxy},
};
use serde_json::Value;
use std::{collections::BTreeSet, net::SocketAddr};

const PROXY_PORT: u16 = 6444;

/// A daemon that reaches the API server by way of the proxy.
pub(crate) fn start(stage: &Stage) -> Result<(Proxy, Daemon)> {
    let address = |port| SocketAddr::new(FABRIC.into(), port);
    let proxy = Proxy::start(stage.world.fabric(), address(PROXY_PORT), address(API_PORT))?;
    Ok((proxy, stage.daemon_by(&format!("https://{FABRIC}:{PROXY_PORT}"))?))
}

pub(crate) fn names(rows: &[ServiceRow]) -> BTreeSet<String> {
    rows.iter().map(|row| row.name.clone()).collect()
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_all_there_is() -> Result<()> {
    let stage = Stage::new()?;
    for i in 1..=40 {
        stage.service(&format!("serve-{i}"), &format!("10.13.7.{i}"), "random")?;
    }
    let (proxy, mut daemon) = start(&stage)?;
    daemon.wait_for_services("all Services", |rows| names(rows).len() == 40)?;
    let before = names(&daemon.services()?);

    // The list of Services takes tens of kilobytes.
    daemon.stop();
    proxy.set(Mode::CutAfter(16_000));
    daemon.launch_without_sync()?;
    daemon.wait_for_warning("nothing is known yet")?;
    ensure!(!daemon.log().contains("synced"), "{}", daemon.log());
    ensure!(names(&daemon.services()?) == before, "half a list took Services away");

    proxy.set(Mode::Pass);
    daemon.wait_for_log("synced")?;
    ensure!(names(&daemon.services()?) == before);
    Ok(())
}

#[test]
fn an_api_server_that_was_out_of_reach_and_has_forgotten_where_we_were_is_listed_anew() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.service("stays", "10.13.7.1", "random")?;
    stage.service("goes", "10.13.7.2", "random")?;
    let (proxy, mut daemon) = start(&stage)?;
    let both: BTreeSet<_> = ["stays", "goes"].map(str::to_owned).into();
    daemon.wait_for_services("both Services", |rows| names(rows) == both)?;

    proxy.set(Mode::Refuse);
    daemon.wait_for_warning("what was last known stays")?;
    stage.api.delete(&format!("{SERVICES}/goes"))?;
    stage.service("comes", "10.13.7.3", "random")?;
    // A server that starts remembers no versions from before.
    stage.api.stop_server();
    stage.api.start_server()?;
    ensure!(names(&daemon.services()?) == both, "the maps changed while nobody could tell anything");

    let before = asked(&stage, "list")?;
    proxy.set(Mode::Pass);
    let now: BTreeSet<_> = ["stays", "comes"].map(str::to_owned).into();
    daemon.wait_for_services("the Services as they are now", |rows| names(rows) == now)?;
    ensure!(asked(&stage, "list")? > before, "the watch was resumed, which proves nothing");
    Ok(())
}

#[test]
fn a_watch_that_breaks_goes_on_where_it_was() -> Result<()> {
    let stage = Stage::new()?;
    stage.service("stays", "10.13.7.1", "random")?;
    stage.service("goes", "10.13.7.2", "random")?;
    let (proxy, mut daemon) = start(&stage)?;
    daemon.wait_for_services("both Services", |rows| names(rows).len() == 2)?;
    let [lists, watches] = [asked(&stage, "list")?, asked(&stage, "watch")?];
    for round in 0..2 {
        proxy.set(Mode::Refuse);
        daemon.wait_for_warning("what was last known stays")?;
        if round == 0 {
            stage.api.delete(&format!("{SERVICES}/goes"))?;
        } else {
            stage.service("comes", "10.13.7.3", "random")?;
        }
        proxy.set(Mode::Pass);
        let now: BTreeSet<_> = ["stays", "comes"][..=round].iter().map(|&name| name.to_owned()).collect();
        daemon.wait_for_services("the Services as they are now", |rows| names(rows) == now)?;
    }
    ensure!(asked(&stage, "watch")? > watches);
    ensure!(asked(&stage, "list")? == lists, "everything was listed anew");
    Ok(())
}

/// How often the daemon has asked for Services in that way.
pub(crate) fn asked(stage: &Stage, verb: &str) -> Result<usize> {
    let asked = stage.api.asked_by_the_daemon()?;
    // A list of one is asked for to learn at which version the API server is.
    let is_whole = |event: &Value| {
        event["requestURI"].as_str().is_some_and(|uri| !uri.split(['?', '&']).any(|it| it == "limit=1"))
    };
    let is_such = |event: &&Value| {
        event["verb"] == verb && event["objectRef"]["resource"] == "services" && is_whole(event)
    };
    Ok(asked.iter().filter(is_such).count())
}
