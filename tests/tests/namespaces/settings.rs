//! The operator's switches: the ConfigMap of `--settings`, live.

use crate::stage::{PODS, PODS_V6, Stage, v4, v6};
use anyhow::{Context as _, Result};
use mcs_proxy::dataplane::pins::PinDir;
use mcs_proxy_tests::{
    Beneath, ServiceRow,
    client::{self, Connection},
};
use std::net::{IpAddr, SocketAddr};

pub(crate) const SETTINGS: [&str; 2] = ["--settings", "mcs-proxy/mcs-proxy"];

fn stage() -> Result<Stage> {
    Stage::with(|service| service.annotated("enabled", "true"), &SETTINGS)
}

/// `data`: the ConfigMap's, as YAML in one line.
pub(crate) fn set(stage: &Stage, data: &str) -> Result<()> {
    let metadata = "{name: mcs-proxy, namespace: mcs-proxy}";
    let object = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {metadata}, data: {data}}}\n");
    stage.manifests.write("settings", &object)
}

/// Both families: what is called, and the pods behind it.
pub(crate) fn families() -> Result<[(SocketAddr, [IpAddr; 2]); 2]> {
    let pods = |texts: [&str; 2]| Ok::<_, anyhow::Error>([texts[0].parse()?, texts[1].parse()?]);
    Ok([(v4()?, pods(PODS)?), (v6()?, pods(PODS_V6)?)])
}

/// Two connections of each family, one to each pod, with where each led.
fn connections(stage: &Stage) -> Result<Vec<(Connection, IpAddr)>> {
    let mut all = Vec::new();
    for (vip, pods) in families()? {
        for _ in pods {
            let mut connection = Connection::open(&stage.client.namespace, vip)?;
            let pod = connection.ask()?;
            all.push((connection, pod));
        }
        let last = [all[all.len() - 2].1, all[all.len() - 1].1];
        assert!(pods.iter().all(|pod| last.contains(pod)), "{last:?}");
    }
    Ok(all)
}

fn all_go_on(connections: &mut [(Connection, IpAddr)]) -> Result<()> {
    for (connection, pod) in connections {
        assert_eq!(connection.ask()?, *pod);
    }
    Ok(())
}

#[test]
fn a_drained_cluster_finishes_its_flows_and_gets_no_new_ones_until_it_is_active_again() -> Result<()> {
    let mut stage = stage()?;
    let mut early = connections(&stage)?;
    let mut datagrams = Vec::new();
    for (vip, [remote, _]) in families()? {
        for _ in 0..2 {
            let socket = client::udp_socket(&stage.client.namespace, vip)?;
            if client::udp_ask(&socket, vip, "first")? == remote {
                datagrams.push((socket, vip, remote));
            }
        }
    }
    assert_eq!(datagrams.len(), 2);

    set(&stage, "{member1: '{state: drain}'}")?;
    stage.wait_for_endpoints(1)?;
    for (vip, [_, local]) in families()? {
        let answers = client::http(&stage.client.namespace, vip, 6)?;
        assert_eq!(client::tally(&answers), [(local, 6)].into());
    }
    all_go_on(&mut early)?;
    for (socket, vip, remote) in &datagrams {
        assert_eq!(client::udp_ask(socket, *vip, "again")?, *remote);
    }

    set(&stage, "{}")?;
    stage.wait_for_endpoints(2)?;
    for (vip, pods) in families()? {
        let answers = client::http(&stage.client.namespace, vip, 6)?;
        assert_eq!(client::tally(&answers), pods.map(|pod| (pod, 3)).into());
    }
    all_go_on(&mut early)
}

#[test]
fn datagrams_leave_a_dropped_cluster_at_once() -> Result<()> {
    let mut stage = stage()?;
    let mut sockets = Vec::new();
    for (vip, _) in families()? {
        for _ in 0..2 {
            let socket = client::udp_socket(&stage.client.namespace, vip)?;
            client::udp_ask(&socket, vip, "first")?;
            sockets.push((socket, vip));
        }
    }
    set(&stage, "{member1: '{state: drop}'}")?;
    stage.wait_for_endpoints(1)?;
    for (socket, vip) in &sockets {
        let local = if vip.is_ipv4() { PODS[1] } else { PODS_V6[1] };
        assert_eq!(client::udp_ask(socket, *vip, "again")?, local.parse::<IpAddr>()?);
    }
    Ok(())
}

#[test]
fn connections_to_a_dropped_cluster_are_reset_and_others_go_on() -> Result<()> {
    let mut stage = stage()?;
    let mut early = connections(&stage)?;
    set(&stage, "{member1: '{state: drop}'}")?;
    stage.daemon.wait_for_log("reset with their next packet")?;
    stage.wait_for_endpoints(1)?;
    let remote = families()?.map(|(_, pods)| pods[0]);
    for (connection, pod) in &mut early {
        match connection.ask() {
            Ok(who) => assert_eq!((who, remote.contains(pod)), (*pod, false)),
            Err(failure) => {
                assert!(remote.contains(pod), "{failure:#}");
                let io = failure.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                assert_eq!(io, Some(std::io::ErrorKind::ConnectionReset), "{failure:#}");
            }
        }
    }
    // They are over at both ends: what the pod had of them is gone with its next packet, and new ones go elsewhere.
    for (vip, [_, local]) in families()? {
        assert_eq!(client::tally(&client::http(&stage.client.namespace, vip, 6)?), [(local, 6)].into());
    }

    set(&stage, "{}")?;
    stage.wait_for_endpoints(2)?;
    connections(&stage)?;
    early.retain(|(_, pod)| !remote.contains(pod));
    assert_eq!(early.len(), 2);
    all_go_on(&mut early)
}

#[test]
fn sockets_of_host_processes_to_a_dropped_cluster_are_closed_and_those_that_called_its_pods_themselves_are_not()
-> Result<()> {
    let mut stage = stage()?;
    let host = stage.node.namespace.clone();
    let (mut by_vip, mut direct) = (Vec::new(), Vec::new());
    for (vip, pods) in families()? {
        let mapped = match vip.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), vip.port()),
            IpAddr::V6(_) => vip,
        };
        for called in [vip, vip, mapped, mapped] {
            let mut connection = Connection::open(&host, called)?;
            let pod = connection.ask()?;
            by_vip.push((connection, pod));
        }
        let mut connection = Connection::open(&host, SocketAddr::new(pods[0], mcs_proxy_tests::POD_PORT))?;
        connection.ask()?;
        direct.push((connection, pods[0]));
    }
    let remote = families()?.map(|(_, pods)| pods[0]);
    assert_eq!(by_vip.iter().filter(|(_, pod)| remote.contains(pod)).count(), 4);
    set(&stage, "{member1: '{state: drop}'}")?;
    stage.daemon.wait_for_log("closed (ECONNABORTED)")?;
    for (connection, pod) in &mut by_vip {
        match connection.ask() {
            Ok(who) => assert_eq!((who, remote.contains(pod)), (*pod, false)),
            Err(failure) => {
                assert!(remote.contains(pod), "{failure:#}");
                let io = failure.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                assert_eq!(io, Some(std::io::ErrorKind::ConnectionAborted), "{failure:#}");
            }
        }
    }
    all_go_on(&mut direct)
}

#[test]
fn a_daemon_that_starts_ends_what_was_dropped_meanwhile() -> Result<()> {
    let mut stage = stage()?;
    let mut early = connections(&stage)?;
    stage.daemon.stop();
    set(&stage, "{member1: '{state: drop}'}")?;
    all_go_on(&mut early)?;
    stage.daemon.launch()?;
    stage.daemon.wait_for_log("reset with their next packet")?;
    let remote = families()?.map(|(_, pods)| pods[0]);
    for (connection, pod) in &mut early {
        assert_eq!(connection.ask().is_err(), remote.contains(pod));
    }
    Ok(())
}

#[test]
fn in_drain_mode_new_flows_go_to_what_is_beneath_and_ours_finish() -> Result<()> {
    let mut stage = stage()?;
    let beneath = Beneath::new(&stage.node.namespace, v4()?, &[PODS[0].parse()?])?;
    let mut early = connections(&stage)?;

    set(&stage, "{mode: drain}")?;
    stage.daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
    all_go_on(&mut early)?;
    let mut theirs = Connection::open(&stage.client.namespace, v4()?)?;
    theirs.ask()?;
    assert_eq!(beneath.served()?, 1);

    set(&stage, "{mode: active}")?;
    stage.wait_for_endpoints(2)?;
    all_go_on(&mut early)?;
    theirs.ask()?;
    client::http(&stage.client.namespace, v4()?, 4)?;
    assert_eq!(beneath.served()?, 1);
    Ok(())
}

/// Links of programs that are pinned.
fn links(stage: &Stage) -> Result<usize> {
    let folder = PinDir::new(stage.daemon.pin_dir()).links();
    Ok(std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.count())
}

#[test]
fn in_bypass_mode_no_program_is_attached_also_to_pods_that_come_and_afterwards_all_are() -> Result<()> {
    let mut stage = stage()?;
    let beneath = Beneath::new(&stage.node.namespace, v4()?, &[PODS[0].parse()?])?;
    let attached = links(&stage)?;
    assert!(attached >= 4, "two programs on each of two pods' interfaces: {attached}");

    set(&stage, "{mode: bypass}")?;
    stage.daemon.wait_for_log("every program is off")?;
    stage.daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
    assert_eq!(links(&stage)?, 0);
    let late = stage.world.add_pod(&stage.node, "late", &["10.12.0.10", "fd10:12::10"])?;
    let mut theirs = Connection::open(&stage.client.namespace, v4()?)?;
    theirs.ask()?;
    assert_eq!(beneath.served()?, 1);

    set(&stage, "{mode: active}")?;
    stage.wait_for_endpoints(2)?;
    // The last one.
    stage.daemon.wait_for_log("attached interface=\"vethlate\"")?;
    theirs.ask()?;
    for client in [&stage.client, &late] {
        for (vip, pods) in families()? {
            let answers = client::http(&client.namespace, vip, 6)?;
            assert_eq!(client::tally(&answers), pods.map(|pod| (pod, 3)).into());
        }
    }
    assert_eq!(links(&stage)?, attached + 2);
    assert_eq!(beneath.served()?, 1);
    Ok(())
}

#[test]
fn a_nodes_own_mode_goes_before_the_settings_and_outlives_the_daemon() -> Result<()> {
    let mut stage = stage()?;
    let mut early = connections(&stage)?;
    assert_eq!(stage.daemon.show(&["mode"])?, "active, as the settings say\n");
    let said = stage.daemon.show(&["mode", "drain"])?;
    assert!(said.starts_with("drain, ordered on this node; the settings say active"), "{said}");
    stage.daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
    all_go_on(&mut early)?;

    stage.daemon.stop();
    set(&stage, "{mode: active}")?;
    stage.daemon.launch()?;
    assert!(stage.daemon.services()?.is_empty());
    let said = stage.daemon.show(&["mode"])?;
    assert!(said.starts_with("drain, ordered on this node; the settings say active"), "{said}");

    assert_eq!(stage.daemon.show(&["mode", "auto"])?, "active, as the settings say\n");
    stage.wait_for_endpoints(2)?;
    all_go_on(&mut early)
}
