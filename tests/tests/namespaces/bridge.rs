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
    Namespace, Pod,
    client::{self, Connection, Tally},
};
use std::fs;

const GATEWAYS: [&str; 2] = ["10.12.0.1", "fd10:12::1"];

/// Makes the pods' interfaces ports of a bridge of their node's, which is their gateway.
fn add_bridge(node: &Namespace, pods: &[&Pod]) -> Result<()> {
    node.ip("link add cni0 type bridge")?;
    node.ip(&format!("address add {}/24 dev cni0", GATEWAYS[0]))?;
    node.ip(&format!("address add {}/64 dev cni0 nodad", GATEWAYS[1]))?;
    node.ip("link set cni0 up")?;
    for pod in pods {
        let (port, inside) = (&pod.host_interface, &pod.namespace);
        node.ip(&format!("address flush dev {port}"))?;
        node.sysctl(&format!("net/ipv4/conf/{port}/proxy_arp"), "0")?;
        node.ip(&format!("link set {port} master cni0"))?;
        inside.ip("route flush dev eth0")?;
        inside.ip("-6 route del default")?;
        inside.ip("address flush dev eth0 scope global")?;
        for (address, gateway) in pod.addresses.iter().zip(GATEWAYS) {
            let (length, nodad) = if address.is_ipv4() { (24, "") } else { (64, "nodad") };
            inside.ip(&format!("address add {address}/{length} dev eth0 {nodad}"))?;
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            node.ip(&format!("{family} route del {address} dev {port}"))?;
            inside.ip(&format!("{family} route add default via {gateway} dev eth0"))?;
        }
    }
    Ok(())
}

/// Waits until the programs know that the client's interface is a port of the bridge.
fn wait_for_place(stage: &Stage) -> Result<()> {
    let pins = PinDir::new(stage.daemon.pin_dir());
    let places: HashMap<MapData, u32, Place> = pins.open_as(MapName::Interfaces, Access::ReadOnly)?;
    let (client, bridge) = (index_of(stage, &stage.client.host_interface)?, index_of(stage, "cni0")?);
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

/// ICMP redirects that a pod has received, of both versions.
fn redirects(pod: &Pod) -> Result<u64> {
    pod.namespace.run(|| {
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut icmp = v4.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_whitespace);
        let (names, values) = icmp.next().zip(icmp.next()).context("Icmp in /proc/net/snmp")?;
        let v4 = names.zip(values).find(|(name, _)| *name == "InRedirects").context("InRedirects")?.1;
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        let v6 =
            v6.lines().find_map(|line| line.strip_prefix("Icmp6InRedirects")).context("Icmp6InRedirects")?;
        anyhow::Ok(v4.parse::<u64>()? + v6.trim().parse::<u64>()?)
    })
}

#[test]
fn a_backend_on_the_clients_bridge_is_reached_whatever_the_bridge_and_the_reverse_path_filter_do()
-> Result<()> {
    let stage = Stage::new()?;
    let node = &stage.node.namespace;
    add_bridge(node, &[&stage.client, &stage.pods[1]])?;
    wait_for_place(&stage)?;
    drop_invalid(node)?;
    let body = vec![b'x'; 1 << 20];
    for call in ["0", "1"] {
        for parameter in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            node.sysctl(&format!("net/bridge/{parameter}"), call)?;
        }
        for filter in ["0", "1", "2"] {
            for interface in ["all", "default", "cni0", &stage.client.host_interface] {
                node.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), filter)?;
            }
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
    ensure!(redirects(&stage.client)? == 0, "the pod hears nothing of a shorter way");
    Ok(())
}
