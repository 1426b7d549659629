//! The node's own processes take turns with pods, with kube-proxy's rules beneath the Service and with none.

use crate::{
    in_both_modes,
    label::label,
    stage::{LOCAL, REMOTE, Stage, endpoints, vips, wait_for_endpoints},
    witness::Witness,
};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{Daemon, Namespace, ProxyMode, client};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

in_both_modes! {
    opted_in: host_calls_alone_and_mixed_with_a_pods_split_15_to_14_beside_nftables,
        host_calls_alone_and_mixed_with_a_pods_split_15_to_14_beside_iptables;
    labelled: a_host_network_client_is_served_where_nftables_has_no_rule,
        a_host_network_client_is_served_where_iptables_has_no_rule;
}

const CALLS: usize = 29;

/// How often each of the two pods was called, the smaller number first.
fn shares(answers: &[IpAddr], vip: SocketAddr) -> [usize; 2] {
    let family = usize::from(vip.is_ipv6());
    let mut shares = [LOCAL, REMOTE].map(|pod| {
        let pod: IpAddr = pod[family].parse().unwrap();
        answers.iter().filter(|answer| **answer == pod).count()
    });
    shares.sort_unstable();
    shares
}

/// Calls in turn from these places.
fn call(
    from: &[&Namespace],
    vip: SocketAddr,
    once: impl Fn(&Namespace, SocketAddr) -> Result<Vec<IpAddr>>,
) -> Result<[usize; 2]> {
    let mut answers = Vec::new();
    for place in from.iter().cycle().take(CALLS) {
        answers.extend(once(place, vip)?);
    }
    Ok(shares(&answers, vip))
}

/// New connections and datagrams of new sockets, of the node's processes alone and of theirs and a pod's in turn; kube-proxy
/// sees none of it.
fn expect_turns(stage: &Stage, witness: &Witness, daemon: &Daemon) -> Result<()> {
    let (host, pod) = (&stage.node.namespace, &stage.client.namespace);
    let before = witness.passed()?;
    let flows = |daemon: &Daemon| -> Result<u64> { Ok(daemon.services()?.iter().map(|row| row.flows).sum()) };
    let counted = flows(daemon)?;
    let mut calls = 0;
    for vip in vips() {
        for from in [&[host][..], &[host, host, pod]] {
            let tcp = call(from, vip, |place, vip| client::http(place, vip, 1))?;
            ensure!(tcp == [14, 15], "TCP to {vip}: {tcp:?}");
            let udp = call(from, vip, |place, vip| client::udp(place, vip, 1))?;
            ensure!(udp == [14, 15], "UDP to {vip}: {udp:?}");
            calls += 2 * CALLS as u64;
        }
    }
    // Each connection once, by whichever path.
    ensure!(flows(daemon)? == counted + calls, "{} of {calls}", flows(daemon)? - counted);
    ensure!(witness.passed()? == before, "{:?} came to kube-proxy", witness.passed()?);
    Ok(())
}

fn opted_in(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let witness = Witness::new(&stage.node)?;
    let mut daemon = stage.daemon()?;
    stage.opt_in(&mut daemon)?;
    expect_turns(&stage, &witness, &daemon)
}

fn labelled(mode: ProxyMode) -> Result<()> {
    let mut stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    label(&stage, &json!("mcs-proxy"))?;
    wait_for_endpoints(&mut daemon, 2)?;
    stage.wait_for_kube_proxy(&[])?;
    let rules = stage.proxy.rules()?;
    for vip in vips() {
        ensure!(!rules.contains(&vip.ip().to_string()), "kube-proxy still has {vip}:\n{rules}");
    }
    let witness = Witness::new(&stage.node)?;
    expect_turns(&stage, &witness, &daemon)?;

    // And back: what the node's processes connect then is kube-proxy's.
    label(&stage, &Value::Null)?;
    daemon.wait_for_services("no Service", <[_]>::is_empty)?;
    stage.wait_for_kube_proxy(&endpoints(true)?)?;
    let before = witness.passed()?.syns;
    for vip in vips() {
        client::http(&stage.node.namespace, vip, 2)?;
    }
    ensure!(witness.passed()?.syns == before + 4);
    Ok(())
}
