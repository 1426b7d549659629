//! Hours without the API server, compressed: what was watched is forgotten there by the time that it can be reached again.

use crate::{
    bad_days::{asked, start},
    stage::{SERVICES, SLICES, Stage},
};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    ServiceRow,
    client::{self, Connection},
    proxy::Mode,
};
use serde_json::json;
use std::{collections::BTreeMap, net::SocketAddr};

const PODS: [&str; 2] = ["10.12.1.6", "10.12.1.7"];

/// The endpoints in the maps, by VIP.
fn served(rows: &[ServiceRow]) -> BTreeMap<String, Vec<String>> {
    let of = |row: &ServiceRow| {
        let used = row.endpoints.iter().filter(|endpoint| endpoint.in_maps);
        (row.vip.to_string(), used.map(|endpoint| endpoint.address.to_string()).collect())
    };
    rows.iter().map(of).collect()
}

fn expected(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let strings = |pods: &[&str]| pods.iter().map(|&pod| pod.to_owned()).collect();
    all.iter().map(|&(vip, pods)| (vip.to_owned(), strings(pods))).collect()
}

/// Without a watch cache it is etcd's compaction alone that makes 410 Gone of a watch.
#[test]
fn what_came_and_went_while_etcd_forgot_it_is_found_by_a_new_list_and_all_is_served_meanwhile() -> Result<()>
{
    let stage = Stage::with_flags(&["--watch-cache=false"])?;
    let _pods = PODS
        .map(|pod| stage.world.add_serving_pod(&stage.nodes[0], &format!("serve-{}", &pod[8..]), &[pod]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let client = stage.world.add_pod(&stage.nodes[0], "client", &["10.12.1.9"])?;
    for (name, ip) in [("stays", "10.13.7.1"), ("goes", "10.13.7.2"), ("moves", "10.13.7.3")] {
        stage.service(name, ip, "round-robin")?;
        stage.import(&format!("member1-{name}-1"), name, &PODS[..1])?;
    }
    stage.import("member1-stays-2", "stays", &PODS[1..])?;
    let (proxy, mut daemon) = start(&stage)?;
    let before = expected(&[("10.13.7.1", &PODS), ("10.13.7.2", &PODS[..1]), ("10.13.7.3", &PODS[..1])]);
    daemon.wait_for_services("three Services", |rows| served(rows) == before)?;
    let vip: SocketAddr = "10.13.7.1:80".parse()?;
    let mut connection = Connection::open(&client.namespace, vip)?;
    let pod = connection.ask()?;

    // A short break for comparison: nothing is forgotten yet.
    let lists = asked(&stage, "list")?;
    proxy.set(Mode::Refuse);
    daemon.wait_for_warning("what was last known stays")?;
    proxy.set(Mode::Pass);
    stage.service("early", "10.13.7.5", "random")?;
    daemon.wait_for_services("what changed in a short break", |rows| rows.len() == 4)?;
    ensure!(asked(&stage, "list")? == lists, "a short break took a new list");

    proxy.set(Mode::Refuse);
    stage.api.delete(&format!("{SERVICES}/goes"))?;
    stage.api.delete(&format!("{SLICES}/member1-goes-1"))?;
    stage.api.delete(&format!("{SLICES}/member1-stays-2"))?;
    stage.api.delete(&format!("{SERVICES}/early"))?;
    stage.api.delete(&format!("{SERVICES}/moves"))?;
    stage.service("moves", "10.13.7.4", "random")?;
    stage.service("comes", "10.13.7.6", "random")?;
    stage.import("member1-comes-1", "comes", &PODS[1..])?;
    for round in 0..20 {
        let change = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        stage.api.patch(&format!("{SERVICES}/stays"), &change)?;
    }
    stage.api.forget_the_past()?;
    let tally = client::tally(&client::http(&client.namespace, vip, 10)?);
    ensure!(PODS.iter().all(|pod| tally.get(&pod.parse().unwrap()) == Some(&5)), "{tally:?}");
    ensure!(daemon.services()?.len() == 4, "the maps changed while nobody could tell anything");

    proxy.set(Mode::Pass);
    let now = expected(&[("10.13.7.1", &PODS[..1]), ("10.13.7.4", &PODS[..1]), ("10.13.7.6", &PODS[1..])]);
    daemon.wait_for_services("the Services as they are now", |rows| served(rows) == now)?;
    ensure!(asked(&stage, "list")? > lists, "nothing was listed anew, though nothing was known any more");
    ensure!(connection.ask()? == pod, "an open connection has moved");
    Ok(())
}
