//! Ports that are used again and again, in and out: nothing that we have left behind catches what kube-proxy serves now,
//! and nothing that its connection tracking remembers catches what is ours now.

use crate::{
    caller::{Caller, LENGTHS},
    in_both_modes,
    stage::{Stage, endpoints, vips, wait_for_endpoints},
    witness::{Passed, Witness},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{Daemon, ProxyMode, client};
use serde_json::json;

const CYCLES: u32 = 10;

in_both_modes! {
    several_pods: ten_times_in_and_out_with_ports_that_stay_beside_nftables,
        ten_times_in_and_out_with_ports_that_stay_beside_iptables;
    one_pod: ten_times_in_and_out_with_ports_that_stay_to_one_pod_beside_nftables,
        ten_times_in_and_out_with_ports_that_stay_to_one_pod_beside_iptables;
    itself: ten_times_in_and_out_a_pod_calls_itself_beside_nftables,
        ten_times_in_and_out_a_pod_calls_itself_beside_iptables;
    restarted: in_and_out_with_a_daemon_that_crashes_and_collects_beside_nftables,
        in_and_out_with_a_daemon_that_crashes_and_collects_beside_iptables;
    recreated: a_service_that_is_made_again_is_served_by_whoever_has_it_beside_nftables,
        a_service_that_is_made_again_is_served_by_whoever_has_it_beside_iptables;
    sticky: a_client_keeps_its_pod_in_and_out_beside_nftables, a_client_keeps_its_pod_in_and_out_beside_iptables;
}

/// All that is called is answered, and comes to kube-proxy, or doesn't.
fn call(caller: &Caller, witness: &Witness, ours: bool) -> Result<()> {
    let before = witness.passed()?;
    let calls = caller.call()?;
    let after = witness.passed()?;
    let passed = Passed { syns: after.syns - before.syns, datagrams: after.datagrams - before.datagrams };
    if ours {
        ensure!(passed == Passed { syns: 0, datagrams: 0 }, "{passed:?} of {calls:?} passed us");
    } else {
        // A SYN may be sent again.
        ensure!(passed.datagrams == calls.datagrams && passed.syns >= calls.syns, "{passed:?} of {calls:?}");
    }
    Ok(())
}

fn in_and_out(
    stage: &Stage,
    daemon: &mut Daemon,
    caller: &Caller,
    number: usize,
    mut between: impl FnMut(&mut Daemon) -> Result<()>,
) -> Result<()> {
    let witness = Witness::new(&stage.node)?;
    call(caller, &witness, false)?;
    for cycle in 0..CYCLES {
        let context = |what: &'static str| move || format!("{what} in cycle {cycle}");
        stage.opt_in_with(daemon, number)?;
        call(caller, &witness, true).with_context(context("ours"))?;
        between(daemon)?;
        call(caller, &witness, true).with_context(context("ours again"))?;
        stage.opt_out(daemon)?;
        call(caller, &witness, false).with_context(context("kube-proxy's"))?;
        between(daemon)?;
        call(caller, &witness, false).with_context(context("kube-proxy's again"))?;
    }
    Ok(())
}

fn several_pods(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    let caller = Caller::new(&stage.client.namespace, &stage.client.addresses, &LENGTHS)?;
    in_and_out(&stage, &mut daemon, &caller, 2, |_| Ok(()))
}

/// Whoever serves, a client's port meets the same pod: for connection tracking it is the same conversation twice.
fn one_pod(mode: ProxyMode) -> Result<()> {
    let mut stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    stage.remove_imports()?;
    stage.wait_for_kube_proxy(&endpoints(false)?)?;
    let caller = Caller::new(&stage.client.namespace, &stage.client.addresses, &LENGTHS)?;
    in_and_out(&stage, &mut daemon, &caller, 1, |_| Ok(()))
}

/// Ours turns round at the pod's interface, kube-proxy's goes through the node. (Fragments are always kube-proxy's.)
fn itself(mode: ProxyMode) -> Result<()> {
    let mut stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    stage.remove_imports()?;
    stage.wait_for_kube_proxy(&endpoints(false)?)?;
    let caller = Caller::new(&stage.local.namespace, &stage.local.addresses, &LENGTHS[..1])?;
    in_and_out(&stage, &mut daemon, &caller, 1, |_| Ok(()))
}

/// Flows are forgotten, and the filter's bits cleared, as soon as may be; and the daemon finds what another left behind.
fn restarted(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let collecting = [
        "--flow-scan-interval",
        "1s",
        "--tcp-timeout-closed",
        "1s",
        "--udp-timeout",
        "1s",
        "--udp-timeout-stream",
        "1s",
    ];
    let mut daemon = stage.daemon_with(&collecting)?;
    let caller = Caller::new(&stage.client.namespace, &stage.client.addresses, &LENGTHS)?;
    in_and_out(&stage, &mut daemon, &caller, 2, |daemon| {
        daemon.crash()?;
        daemon.launch()
    })
}

fn recreated(mode: ProxyMode) -> Result<()> {
    let mut stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    let caller = Caller::new(&stage.client.namespace, &stage.client.addresses, &LENGTHS)?;
    for was_ours in [true, false] {
        for is_ours in [false, true] {
            if was_ours {
                stage.opt_in(&mut daemon)?;
            } else {
                stage.opt_out(&mut daemon)?;
            }
            call(&caller, &witness, was_ours)?;
            stage.delete(&mut daemon)?;
            stage.create(&mut daemon, is_ours)?;
            let context = || format!("was ours: {was_ours}, is ours: {is_ours}");
            call(&caller, &witness, is_ours).with_context(context)?;
        }
    }
    Ok(())
}

/// `sessionAffinity: ClientIP`: each proxy has a memory of its own, and keeps to it.
fn sticky(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    stage.change(&json!({ "spec": { "sessionAffinity": "ClientIP" } }))?;
    let caller = Caller::new(&stage.client.namespace, &stage.client.addresses, &LENGTHS)?;
    let mut ours = Vec::new();
    for _ in 0..3 {
        stage.opt_in(&mut daemon)?;
        wait_for_endpoints(&mut daemon, 2)?;
        caller.call()?;
        for vip in vips() {
            let answers = client::http(&stage.client.namespace, vip, 6)?;
            ensure!(answers.iter().all(|pod| *pod == answers[0]), "{vip}: {answers:?}");
            ours.push(answers[0]);
        }
        stage.opt_out(&mut daemon)?;
        caller.call()?;
    }
    ensure!(ours.len() == 6);
    Ok(())
}
