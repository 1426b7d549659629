//! Pods' interfaces come and go while the daemon runs, and not only pods have veths.

use crate::{
    datagrams,
    stage::{Stage, v4, v6},
    tuples::open_from_port,
};
use anyhow::{Context, Result, ensure};
use mcs_proxy::dataplane::sys::{TcxHook, tcx_query};
use mcs_proxy_tests::{
    client::{self, Connection},
    karmada::Service,
};
use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

pub(crate) fn index_of(stage: &Stage, interface: &str) -> Result<u32> {
    let shown = stage.node.namespace.ip(&format!("-o link show dev {interface}"))?;
    Ok(shown.split(':').next().context("an index")?.parse()?)
}

/// Programs on each hook of an interface of the node's.
fn attached(stage: &Stage, index: u32) -> Result<[usize; 2]> {
    let query = move |hook| tcx_query(index, hook).map(|programs| programs.len());
    stage.node.namespace.run(move || anyhow::Ok([query(TcxHook::Ingress)?, query(TcxHook::Egress)?]))
}

/// The interfaces whose links are pinned.
fn pinned(stage: &Stage) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for version in fs::read_dir(stage.daemon.pin_dir())? {
        let links = version?.path().join("links");
        if links.is_dir() {
            for link in fs::read_dir(links)? {
                let name = link?.file_name().into_string().ok().context("a name")?;
                found.insert(name.split('-').next().context("an index")?.parse()?);
            }
        }
    }
    Ok(found)
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < Duration::from_secs(20), "no {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether the client is served by us again, and not by what it had before.
fn is_served(stage: &Stage) -> Result<()> {
    let index = index_of(stage, &stage.client.host_interface)?;
    wait_for("programs on the client's interface", || Ok(attached(stage, index)? == [1, 1]))?;
    let before = stage.flows()?;
    for service in [v4()?, v6()?] {
        client::http(&stage.client.namespace, service, 4)?;
    }
    ensure!(stage.flows()? == before + 8, "{} flows, {before} before", stage.flows()?);
    wait_for("pins of what is there alone", || Ok(pinned(stage)?.contains(&index)))
}

#[test]
fn an_interface_that_is_made_anew_is_served_under_its_old_name_and_its_old_index() -> Result<()> {
    let stage = Stage::new()?;
    is_served(&stage)?;
    for same_index in [false, true, false, true] {
        let old = index_of(&stage, &stage.client.host_interface)?;
        stage.client.rewire(&stage.node, same_index)?;
        let new = index_of(&stage, &stage.client.host_interface)?;
        assert_eq!(old == new, same_index);
        is_served(&stage)?;
        wait_for("end of the old pins", || Ok(same_index || !pinned(&stage)?.contains(&old)))?;
    }
    Ok(())
}

/// What happened to the interfaces cannot be told from the messages, of which some were lost.
#[test]
fn an_interface_that_is_made_anew_while_messages_are_lost_is_served() -> Result<()> {
    let stage = Stage::new()?;
    is_served(&stage)?;
    stage.daemon.pause(true)?;
    let noise: String =
        (0..4000).map(|i| format!("address add 10.{}.{}.1/32 dev lo\n", 100 + i / 250, i % 250)).collect();
    let batch = stage.world.folder("noise")?.join("batch");
    fs::write(&batch, noise)?;
    stage.node.namespace.ip(&format!("-batch {}", batch.display()))?;
    stage.client.rewire(&stage.node, true)?;
    stage.daemon.pause(false)?;
    is_served(&stage)
}

#[test]
fn an_interface_that_is_gone_leaves_no_link_no_pin_and_no_flow_behind() -> Result<()> {
    let opted_in = |service: Service| service.annotated("enabled", "true");
    let stage = Stage::with(opted_in, &["--flow-scan-interval", "1s"])?;
    let before = pinned(&stage)?;
    for round in 0..3 {
        let addresses = [format!("10.12.0.{}", 50 + round), format!("fd10:12::{}", 50 + round)];
        let addresses = addresses.each_ref().map(String::as_str);
        let pod = stage.world.add_pod(&stage.node, &format!("passing-{round}"), &addresses)?;
        let mut connections = Vec::new();
        for service in [v4()?, v6()?] {
            let mut connection = Connection::open(&pod.namespace, service)?;
            connection.ask()?;
            connections.push(connection);
            client::udp(&pod.namespace, service, 3)?;
        }
        let index = index_of(&stage, &pod.host_interface)?;
        wait_for("programs on the pod's interface", || Ok(attached(&stage, index)? == [1, 1]))?;
        assert_eq!(stage.daemon.connections()?, 8);
        assert_eq!(pinned(&stage)?.len(), before.len() + 1, "round {round}");
        stage.node.namespace.ip(&format!("link del {}", pod.host_interface))?;
        wait_for("end of its pins", || Ok(pinned(&stage)? == before))?;
        wait_for("end of its flows", || Ok(stage.daemon.connections()? == 0))?;
    }
    Ok(())
}

/// A node that is itself a network namespace reaches the others by a veth, which looks much like a pod's.
#[test]
fn a_nodes_own_uplink_is_left_alone_though_it_is_a_veth() -> Result<()> {
    let stage = Stage::new()?;
    is_served(&stage)?;
    let uplink = index_of(&stage, "eth0")?;
    assert_eq!(attached(&stage, uplink)?, [0, 0]);
    assert!(!pinned(&stage)?.contains(&uplink));
    Ok(())
}

#[test]
fn a_pods_interface_that_gets_another_name_at_once_is_served() -> Result<()> {
    let stage = Stage::new()?;
    for number in 0..5 {
        let address = format!("10.12.0.{}", 60 + number);
        let pod = stage.world.add_pod(&stage.node, &format!("pod-{number}"), &[&address])?;
        let index = index_of(&stage, &pod.host_interface)?;
        stage.node.namespace.ip(&format!("link set {} name named{number}", pod.host_interface))?;
        wait_for("programs on it", || Ok(attached(&stage, index)? == [1, 1]))?;
        client::http(&pod.namespace, v4()?, 2)?;
    }
    Ok(())
}

/// The first pod is taken away in the middle of its conversations: nothing in the maps says that they are over.
#[test]
fn a_pod_with_the_addresses_and_ports_of_one_that_is_gone_meets_none_of_its_flows() -> Result<()> {
    let stage = Stage::new()?;
    for round in 0..2 {
        let name = format!("heir-{round}");
        let pod = stage.world.add_pod(&stage.node, &name, &["10.12.0.50", "fd10:12::50"])?;
        let index = index_of(&stage, &pod.host_interface)?;
        wait_for("programs on the pod's interface", || Ok(attached(&stage, index)? == [1, 1]))?;
        let before = stage.flows()?;
        for service in [v4()?, v6()?] {
            let mut connection = open_from_port(&pod.namespace, service)?;
            connection.ask()?;
            let socket = datagrams::socket(&pod.namespace, service)?;
            client::udp_ask(&socket, service, &name)?;
            // Neither hears of what the other has left unfinished: the stream is its own, byte by byte.
            connection.echo(&[b'x'; 1 << 16])?;
        }
        ensure!(stage.flows()? == before + 4, "{} flows, {before} before", stage.flows()?);
        stage.node.namespace.ip(&format!("link del {}", pod.host_interface))?;
    }
    Ok(())
}
