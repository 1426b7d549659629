//! Client and backend on one bridge, with kube-proxy's own rules on what the host forwards: without `br_netfilter`,
//! connection tracking sees only that part of a bridged conversation which goes by way of the host, and kube-proxy
//! drops what it takes for invalid.

use crate::{
    in_both_modes,
    stage::{LOCAL, REMOTE, Stage, vips},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    BRIDGE, Namespace, ProxyMode,
    client::{self, Connection, Tally},
};
use std::net::SocketAddr;

in_both_modes! {
    on_one_bridge: pods_on_one_bridge_meet_through_their_service_beside_nftables,
        pods_on_one_bridge_meet_through_their_service_beside_iptables;
}

/// Counts what the host forwards, and what of it connection tracking has seen only half of; ahead of all that drops.
const WATCH: &str = "add table inet watch; add counter inet watch forwarded; add counter inet watch invalid; \
    add chain inet watch forward { type filter hook forward priority -10; }; \
    add rule inet watch forward counter name forwarded; \
    add rule inet watch forward ct state invalid counter name invalid";

fn on_one_bridge(mode: ProxyMode) -> Result<()> {
    let stage = Stage::new(mode)?;
    let node = &stage.node.namespace;
    stage.node.add_bridge(&[&stage.client, &stage.local])?;
    node.nft(WATCH)?;
    let mut daemon = stage.daemon()?;
    stage.opt_in(&mut daemon)?;
    let mut forwarded = Vec::new();
    for call in ["0", "1"] {
        stage.node.set_bridge_netfilter(call)?;
        let before = counted(node, "forwarded")?;
        for filter in ["0", "1", "2"] {
            let ports = [&stage.client.host_interface, &stage.local.host_interface];
            node.set_reverse_path_filter(filter, &[BRIDGE, ports[0], ports[1]])?;
            for (vip, pods) in vips().into_iter().zip([[LOCAL[0], REMOTE[0]], [LOCAL[1], REMOTE[1]]]) {
                let context = || format!("{vip}, bridge-nf-call {call}, rp_filter {filter}");
                // The one calls the other and a pod elsewhere; the other calls itself and that pod.
                for caller in [&stage.client.namespace, &stage.local.namespace] {
                    meet(caller, vip, pods).with_context(context)?;
                }
            }
        }
        forwarded.push(counted(node, "forwarded")? - before);
    }
    ensure!(counted(node, "invalid")? == 0, "{} packets of half a conversation", counted(node, "invalid")?);
    // Without it only what goes elsewhere is forwarded, with it what is bridged as well.
    ensure!(forwarded[0] > 0 && forwarded[1] > forwarded[0] + 100, "forwarded: {forwarded:?}");
    ensure!(stage.client.namespace.redirects_received()? == 0, "the pod hears nothing of a shorter way");
    Ok(())
}

fn counted(node: &Namespace, counter: &str) -> Result<u64> {
    let text = node.nft(&format!("list counter inet watch {counter}"))?;
    let mut words = text.split_whitespace().skip_while(|&word| word != "packets").skip(1);
    words.next().and_then(|number| number.parse().ok()).with_context(|| text.clone())
}

/// Connections in turns, datagrams, and a stream to each pod.
fn meet(caller: &Namespace, vip: SocketAddr, pods: [&str; 2]) -> Result<()> {
    let tally = client::tally(&client::http(caller, vip, 6)?);
    let even: Tally = pods.iter().map(|pod| (pod.parse().unwrap(), 3)).collect();
    ensure!(tally == even, "{tally:?}");
    client::udp(caller, vip, 4)?;
    let body = vec![b'x'; 1 << 19];
    for _ in 0..2 {
        let mut connection = Connection::open(caller, vip)?;
        connection.echo(&body)?;
        connection.ask()?;
    }
    Ok(())
}
