//! The node's own processes, and whoever is served by sockets: in and out.

use crate::{
    caller::{Caller, LENGTHS},
    in_both_modes,
    load::Load,
    stage::{Stage, vips},
    witness::{Passed, Witness},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{Cgroup, Daemon, ProxyMode, client};
use std::net::IpAddr;

const CYCLES: u32 = 10;
/// Streams of each family from the beginning; each half cycle adds one more.
const STREAMS: u32 = 4;
const CALLS: usize = 6;

in_both_modes! {
    same_ports: ten_times_in_and_out_with_ports_of_the_nodes_own_beside_nftables,
        ten_times_in_and_out_with_ports_of_the_nodes_own_beside_iptables;
    under_load: ten_times_in_and_out_under_load_of_the_nodes_own_beside_nftables,
        ten_times_in_and_out_under_load_of_the_nodes_own_beside_iptables;
    pods: ten_times_in_and_out_with_pods_served_by_sockets_beside_nftables,
        ten_times_in_and_out_with_pods_served_by_sockets_beside_iptables;
}

fn caller(stage: &Stage) -> Result<Caller> {
    let addresses: [IpAddr; 2] = [stage.node.address.into(), stage.node.address_v6.into()];
    Caller::new(&stage.node.namespace, &addresses, &LENGTHS)
}

fn since(witness: &Witness, before: Passed) -> Result<Passed> {
    let now = witness.passed()?;
    Ok(Passed { syns: now.syns - before.syns, datagrams: now.datagrams - before.datagrams })
}

fn same_ports(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    // A connected socket belongs to whoever served when it was connected: here kube-proxy.
    let caller = caller(&stage)?;
    caller.call()?;
    for cycle in 0..CYCLES {
        let context = |what: &'static str| move || format!("{what} in cycle {cycle}");
        stage.opt_in(&mut daemon)?;
        let before = witness.passed()?;
        let theirs = caller.by_connected().with_context(context("connected, ours"))?;
        caller.by_unconnected().with_context(context("ours"))?;
        caller.by_new_sockets().with_context(context("ours"))?;
        ensure!(since(&witness, before)? == theirs, "{:?} of {theirs:?}", since(&witness, before)?);

        stage.opt_out(&mut daemon)?;
        let before = witness.passed()?;
        let calls = caller.call().with_context(context("kube-proxy's"))?;
        let passed = since(&witness, before)?;
        ensure!(passed.datagrams == calls.datagrams && passed.syns >= calls.syns, "{passed:?} of {calls:?}");
    }
    Ok(())
}

fn tcp_calls(daemon: &Daemon) -> Result<u64> {
    Ok(daemon.services()?.iter().filter(|row| row.protocol == "TCP").map(|row| row.flows).sum())
}

fn under_load(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let mut load = Load::new(&stage.node.namespace);
    for vip in vips() {
        load.come_and_go(vip);
        for _ in 0..STREAMS {
            load.stream(vip)?;
        }
    }
    for _ in 0..CYCLES {
        stage.opt_in(&mut daemon)?;
        vips().into_iter().try_for_each(|vip| load.stream(vip))?;
        load.wait_for_rounds(3)?;
        // The two streams, and what came and went.
        ensure!(tcp_calls(&daemon)? > 2);

        let before = witness.passed()?.syns;
        stage.opt_out(&mut daemon)?;
        vips().into_iter().try_for_each(|vip| load.stream(vip))?;
        load.wait_for_rounds(3)?;
        ensure!(witness.passed()?.syns > before + 2);
    }
    load.end()
}

/// With `--socket-path all`. Whoever is to be served so must be in the cgroup.
fn pods(mode: ProxyMode) -> Result<()> {
    let cgroup = Cgroup::new()?;
    let path = cgroup.path().display().to_string();
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon_with(&["--socket-path", "all", "--cgroup", &path])?;
    let call = || -> Result<Passed> {
        let before = witness.passed()?;
        for vip in vips() {
            let url = format!("http://{vip}/ ").repeat(CALLS);
            let script = format!(
                "echo $$ > {path}/cgroup.procs && \
                 exec curl --globoff --silent --show-error --fail --max-time 5 --header 'Connection: close' {url}"
            );
            let output = stage.client.namespace.command("sh")?.args(["-c", &script]).output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            let pods = said.lines().map(client::who).collect::<Result<Vec<_>>>()?;
            ensure!(pods.len() == CALLS, "{said}{}", String::from_utf8_lossy(&output.stderr));
        }
        since(&witness, before)
    };
    for _ in 0..CYCLES {
        ensure!(call()?.syns >= 2 * CALLS as u64);
        stage.opt_in(&mut daemon)?;
        ensure!(call()?.syns == 0);
        ensure!(tcp_calls(&daemon)? == 2 * CALLS as u64 && daemon.connections()? == 0);
        stage.opt_out(&mut daemon)?;
    }
    ensure!(call()?.syns >= 2 * CALLS as u64);
    Ok(())
}
