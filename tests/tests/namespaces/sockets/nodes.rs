//! Whose sockets are whose, and with which rights.

use crate::stage::{PODS, Stage, slice, v4, v6};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::{Daemon, ServiceRow, client, karmada::Manifests};
use std::{
    fs,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

fn flows(daemon: &Daemon) -> Result<u64> {
    Ok(daemon.services()?.iter().map(|row: &ServiceRow| row.flows).sum())
}

/// Two daemons have their programs on one cgroup, and each serves its own node.
#[test]
fn two_nodes_on_one_kernel_serve_their_own_sockets_and_close_no_others() -> Result<()> {
    let mut stage = Stage::new()?;
    let vip = v4()?;
    let manifests = Manifests::new(stage.world.folder("manifests-member1")?)?;
    manifests.service(&crate::stage::service()?.annotated("enabled", "true"))?;
    manifests.slice(&slice(0, PODS[0])?)?;
    let source = format!("directory={}", manifests.folder().display());
    let other = Daemon::start_with(&stage.remote, &["--source", &source])?;

    let pod: IpAddr = PODS[0].parse()?;
    assert_eq!(client::http(&stage.remote.namespace, vip, 3)?, [pod; 3]);
    assert_eq!((flows(&other)?, stage.flows()?), (3, 0));
    assert_eq!(client::tally(&client::http(&stage.node.namespace, vip, 4)?).len(), 2);
    assert_eq!((flows(&other)?, stage.flows()?), (3, 4));

    // The pod in member1 is gone to member2's node, and to nobody else.
    let theirs = client::udp_socket(&stage.remote.namespace, vip)?;
    assert_eq!(client::udp_ask(&theirs, vip, "before")?, pod);
    let mut ours: Vec<UdpSocket> = Vec::new();
    for _ in 0..2 {
        ours.push(client::udp_socket(&stage.node.namespace, vip)?);
    }
    stage.manifests.slice(&super::emptied(0, PODS[0])?)?;
    stage.manifests.slice(&super::emptied(0, crate::stage::PODS_V6[0])?)?;
    stage.wait_for_endpoints(1)?;
    stage.daemon.wait_for_log("connected UDP sockets whose endpoint is gone: closed")?;
    let kinds: Vec<_> = ours
        .iter()
        .map(|socket| client::udp_ask(socket, vip, "after").map_err(|error| error.root_cause().to_string()))
        .collect();
    assert_eq!(kinds.iter().filter(|kind| kind.is_ok()).count(), 1, "{kinds:?}");
    assert_eq!(client::udp_ask(&theirs, vip, "after")?, pod);
    Ok(())
}

/// `CapEff` and `CapBnd` of proc_pid_status(5): NET_ADMIN, PERFMON and BPF.
#[test]
fn three_capabilities_are_enough_for_both_paths_and_for_closing_sockets() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.daemon.stop();
    fs::remove_dir_all(stage.daemon.pin_dir())?;
    stage.daemon.launch_confined()?;
    let status = fs::read_to_string(format!("/proc/{}/status", stage.daemon.id().context("it ended")?))?;
    let three = format!("{:016x}", (1_u64 << 12) | (1 << 38) | (1 << 39));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(status.contains(&format!("{set}:\t{three}")), "{status}");
    }
    for vip in [v4()?, v6()?] {
        assert_eq!(client::tally(&client::http(&stage.client.namespace, vip, 4)?).len(), 2);
        assert_eq!(client::tally(&client::http(&stage.node.namespace, vip, 4)?).len(), 2);
        assert_eq!(client::udp(&stage.node.namespace, vip, 2)?.len(), 2);
    }
    assert_eq!(stage.daemon.connections()?, 8, "the pod's");
    let vip = v4()?;
    let sockets =
        [client::udp_socket(&stage.node.namespace, vip)?, client::udp_socket(&stage.node.namespace, vip)?];
    stage.manifests.slice(&super::emptied(0, PODS[0])?)?;
    stage.daemon.wait_for_log("connected UDP sockets whose endpoint is gone: closed")?;
    let mut failed = 0;
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        failed += usize::from(client::udp_ask(socket, vip, "after").is_err());
    }
    assert_eq!(failed, 1);
    ensure!(!stage.daemon.log().contains(" WARN "), "{}", stage.daemon.log());
    Ok(())
}
