//! Pods on one bridge, as bridge CNI plugins set them up.

use crate::{
    interfaces::{index_of, wait_for},
    stage::{PODS, PODS_V6, Stage, v4, v6},
};
use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, MapData};
use mcs_proxy::dataplane::{pins::PinDir, sys::Access};
use mcs_proxy_ebpf::abi::{MapName, Place};
use mcs_proxy_tests::{
    BRIDGE, Namespace,
    client::{self, Connection, Tally},
};

/// Waits until the programs know that the client's interface is a port of the bridge.
fn wait_for_place(stage: &Stage) -> Result<()> {
    let pins = PinDir::new(stage.daemon.pin_dir());
    let places: HashMap<MapData, u32, Place> = pins.open_as(MapName::Interfaces, Access::ReadOnly)?;
    let (client, bridge) = (index_of(stage, &stage.client.host_interface)?, index_of(stage, BRIDGE)?);
    wait_for("place of the client's interface", || {
        Ok(places.get(&client, 0).is_ok_and(|place| place.bridge == bridge))
    })
}

/// As kube-proxy's iptables mode has it (chain KUBE-FORWARD), which sees the connections that the host forwards.
fn drop_invalid(node: &Namespace) -> Result<()> {
    node.nft(
        "add table inet forward; \
         add chain inet forward forward { type filter hook forward priority filter; }; \
         add rule inet forward forward ct state invalid drop",
    )
    .map(drop)
}

#[test]
fn a_backend_on_the_clients_bridge_is_reached_whatever_the_bridge_and_the_reverse_path_filter_do()
-> Result<()> {
    let stage = Stage::new()?;
    let node = &stage.node.namespace;
    stage.node.add_bridge(&[&stage.client, &stage.pods[1]])?;
    wait_for_place(&stage)?;
    drop_invalid(node)?;
    let body = vec![b'x'; 1 << 20];
    for call in ["0", "1"] {
        stage.node.set_bridge_netfilter(call)?;
        for filter in ["0", "1", "2"] {
            node.set_reverse_path_filter(filter, &[BRIDGE, &stage.client.host_interface])?;
            for (service, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
                let context = || format!("{service}, bridge-nf-call {call}, rp_filter {filter}");
                let answers = client::http(&stage.client.namespace, service, 10).with_context(context)?;
                let even: Tally = pods.iter().map(|pod| (pod.parse().unwrap(), 5)).collect();
                ensure!(client::tally(&answers) == even, "{}: {answers:?}", context());
                client::udp(&stage.client.namespace, service, 4).with_context(context)?;
                for _ in 0..2 {
                    let mut connection = Connection::open(&stage.client.namespace, service)?;
                    connection.echo(&body).with_context(context)?;
                    connection.ask().with_context(context)?;
                }
            }
        }
    }
    // The first packets went by way of the host, which knows a shorter one and says so.
    ensure!(node.redirects_sent()? > 0, "the host has sent no redirect");
    ensure!(stage.client.namespace.redirects_received()? == 0, "the pod hears nothing of a shorter way");
    Ok(())
}
