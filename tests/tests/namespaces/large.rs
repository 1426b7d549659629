//! Packets larger than usual, and with a tag: segments yet to be cut, jumbo frames, VLANs.

use crate::{
    interfaces::wait_for,
    stage::{PODS, PODS_V6, SERVICE_PORT, Stage, slice, v4, v6},
    untouched::{hardware_address, mac},
};
use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use mcs_proxy_tests::{PacketSocket, client::Connection};
use std::{net::IpAddr, time::Duration};

/// Bytes of which no two stretches are alike.
fn body(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The longest frame that has come in, among those that wait to be read.
fn longest(socket: &PacketSocket) -> Result<usize> {
    let mut longest = 0;
    while let Some(frame) = socket.receive(Duration::ZERO)? {
        longest = longest.max(frame.len());
    }
    Ok(longest)
}

#[test]
fn a_stream_arrives_whole_in_segments_yet_to_be_cut_and_in_single_ones() -> Result<()> {
    let stage = Stage::new()?;
    let body = body(4 << 20);
    for offload in [true, false] {
        if !offload {
            stage.client.namespace.turn_off_offloads("eth0")?;
            stage.node.namespace.turn_off_offloads(&stage.client.host_interface)?;
        }
        for service in [v4()?, v6()?] {
            let seen = stage.node.namespace.packet_socket(&stage.client.host_interface)?;
            // One backend is on this node, the other beyond it.
            for _ in 0..2 {
                Connection::open(&stage.client.namespace, service)?.echo(&body)?;
            }
            let longest = longest(&seen)?;
            let fits = if offload { longest > 10_000 } else { (1400..=1514).contains(&longest) };
            ensure!(fits, "{service}, offload {offload}: {longest} bytes");
        }
    }
    Ok(())
}

#[test]
fn a_stream_arrives_whole_in_jumbo_frames() -> Result<()> {
    let mut stage = Stage::new()?;
    for address in [PODS[0], PODS_V6[0]] {
        let mut slice = slice(0, address)?;
        slice.endpoints.clear();
        stage.manifests.slice(&slice)?;
    }
    stage.wait_for_endpoints(1)?;
    for pod in [&stage.client, &stage.pods[1]] {
        stage.node.namespace.ip(&format!("link set {} mtu 9000", pod.host_interface))?;
        pod.namespace.ip("link set eth0 mtu 9000")?;
    }
    stage.client.namespace.turn_off_offloads("eth0")?;
    for service in [v4()?, v6()?] {
        let seen = stage.node.namespace.packet_socket(&stage.client.host_interface)?;
        Connection::open(&stage.client.namespace, service)?.echo(&body(4 << 20))?;
        let longest = longest(&seen)?;
        ensure!((8900..=9014).contains(&longest), "{service}: {longest} bytes");
    }
    Ok(())
}

/// A datagram of the client's to an address, with a VLAN's tag or without.
fn datagram(stage: &Stage, to: IpAddr, port: u16, tag: Option<u16>) -> Result<Vec<u8>> {
    let client = &stage.client;
    let gateway = stage.node.namespace.ip(&format!("-o link show {}", client.host_interface))?;
    let stations = (mac(&client.namespace)?, hardware_address(&gateway)?);
    let ethernet = PacketBuilder::ethernet2(stations.0, stations.1);
    let from = client.address(to.is_ipv6()).context("an address")?;
    let ip = match (from, to, tag) {
        (IpAddr::V4(from), IpAddr::V4(to), None) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to), None) => ethernet.ipv6(from.octets(), to.octets(), 64),
        (IpAddr::V4(from), IpAddr::V4(to), Some(tag)) => {
            ethernet.single_vlan(tag.try_into()?).ipv4(from.octets(), to.octets(), 64)
        }
        (IpAddr::V6(from), IpAddr::V6(to), Some(tag)) => {
            ethernet.single_vlan(tag.try_into()?).ipv6(from.octets(), to.octets(), 64)
        }
        mixed => anyhow::bail!("two families in one packet: {mixed:?}"),
    };
    let mut frame = Vec::new();
    ip.udp(port, SERVICE_PORT).write(&mut frame, b"hello")?;
    Ok(frame)
}

/// Another network than the pods': whatever addresses it uses, they are not ours. The kernel takes the tag out of a
/// frame before our program sees it.
#[test]
fn packets_with_a_vlan_tag_open_no_flow_though_they_go_to_an_address_that_is_ours() -> Result<()> {
    let stage = Stage::new()?;
    let wire = stage.client.namespace.packet_socket("eth0")?;
    for service in [v4()?, v6()?] {
        for port in 20_300..20_310 {
            wire.send(&datagram(&stage, service.ip(), port, Some(5))?)?;
        }
        // Behind them on the same wire, and alike but for the tag.
        wire.send(&datagram(&stage, service.ip(), 20_300, None)?)?;
    }
    wait_for("flows of those without a tag", || Ok(stage.flows()? >= 2))?;
    ensure!(stage.flows()? == 2, "{} flows", stage.flows()?);
    Ok(())
}
