//! What is not ours stays as it is, bit by bit, and others see it too.

use crate::stage::{PODS, Stage, v4};
use anyhow::{Context, Result};
use mcs_proxy_tests::{Beneath, Namespace, Pod, client};
use std::{fs, net::Ipv4Addr, time::Duration};

/// Longer than anything on this machine takes.
const QUIET: Duration = Duration::from_millis(300);

/// Frames that a pod might send to a Service that is not opted in, or to anything else; told apart by their
/// identification field. No two are alike to connection tracking.
fn frames(client: &Pod, gateway: [u8; 6]) -> Result<Vec<Vec<u8>>> {
    let own = mac(&client.namespace)?;
    let source = Ipv4Addr::new(10, 12, 0, 9);
    let vip = Ipv4Addr::new(10, 13, 0, 50);
    let pod = Ipv4Addr::new(10, 10, 0, 6);
    let mut frames = Vec::new();
    for (index, (destination, protocol)) in
        [(vip, 6), (pod, 6), (vip, 17), (pod, 17), (pod, 1), (pod, 132), (pod, 47)].into_iter().enumerate()
    {
        for length in [0_usize, 1, 700] {
            let identification = 0x4d00 + u16::try_from(frames.len())?;
            let port = 40_000 + u16::try_from(index)? * 10 + u16::try_from(length % 7)?;
            let payload: Vec<u8> = (0..length).map(|byte| (byte * 31) as u8).collect();
            let transport = transport(protocol, port, source, destination, &payload);
            let mut frame = gateway.to_vec();
            frame.extend(own);
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(identification, protocol, source, destination, &transport));
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn transport(protocol: u8, port: u16, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut segment = port.to_be_bytes().to_vec();
    segment.extend(8080_u16.to_be_bytes());
    let checksum_at = match protocol {
        6 => {
            segment.extend([1, 2, 3, 4, 0, 0, 0, 0, 5 << 4, 0x02, 0x20, 0, 0, 0, 0, 0]);
            Some(16)
        }
        17 => {
            segment.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
            segment.extend([0, 0]);
            Some(6)
        }
        // Whatever these bytes mean to the others.
        _ => None,
    };
    segment.extend(payload);
    if let Some(at) = checksum_at {
        let mut pseudo = source.octets().to_vec();
        pseudo.extend(destination.octets());
        pseudo.extend([0, protocol]);
        pseudo.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
        pseudo.extend(&segment);
        segment[at..at + 2].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    }
    segment
}

fn ipv4(
    identification: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0x10];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend([0, 0, 61, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The hardware address of a pod's interface.
pub(crate) fn mac(namespace: &Namespace) -> Result<[u8; 6]> {
    hardware_address(&namespace.ip("-o link show eth0")?)
}

pub(crate) fn hardware_address(text: &str) -> Result<[u8; 6]> {
    let (_, rest) = text.split_once("link/ether ").with_context(|| text.to_owned())?;
    let bytes = rest.split_whitespace().next().unwrap_or_default().split(':');
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().ok().with_context(|| text.to_owned())
}

/// Sends the frames from the client and returns what of them arrives at the pod in member1.
fn travel(stage: &Stage, frames: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let far = stage.pods[0].namespace.packet_socket("eth0")?;
    let near = stage.client.namespace.packet_socket("eth0")?;
    for frame in frames {
        near.send(frame)?;
    }
    let mut arrived = Vec::new();
    while let Some(frame) = far.receive(QUIET)? {
        // IPv4 with an identification of ours; the rest is the kernels' own talk.
        if frame.get(12..14) == Some(&[0x08, 0x00]) && frame.get(18) == Some(&0x4d) {
            arrived.push(frame);
        }
    }
    arrived.sort_by_key(|frame| [frame[18], frame[19]]);
    Ok(arrived)
}

/// The same frames, with the daemon's programs on the way and without them, arrive alike in every bit.
#[test]
fn what_is_not_opted_in_arrives_byte_by_byte_as_without_us() -> Result<()> {
    let mut stage = Stage::new()?;
    // Not opted in; what is beneath serves it.
    let _beneath = Beneath::new(&stage.node.namespace, "10.13.0.50:8080".parse()?, &[PODS[0].parse()?])?;
    let gateway = hardware_address(
        &stage.node.namespace.ip(&format!("-o link show {}", stage.client.host_interface))?,
    )?;
    let frames = frames(&stage.client, gateway)?;

    let with_us = travel(&stage, &frames)?;
    assert_eq!(with_us.len(), frames.len(), "some did not arrive");
    assert_eq!(stage.flows()?, 0);
    // One that is ours goes the same way and is changed: the programs are there.
    client::http(&stage.client.namespace, v4()?, 2)?;
    assert_eq!(stage.flows()?, 2);

    stage.daemon.stop();
    fs::remove_dir_all(stage.daemon.pin_dir())?;
    let without_us = travel(&stage, &frames)?;
    assert_eq!(with_us, without_us);
    Ok(())
}

/// Someone else's filter behind ours on the hook, a mirror, sees every packet: what we have translated, and the rest.
#[test]
fn other_programs_on_the_hook_still_run() -> Result<()> {
    let stage = Stage::new()?;
    let node = &stage.node.namespace;
    let interface = &stage.client.host_interface;
    node.ip("link add mirror type veth peer name nobody")?;
    node.ip("link set mirror up")?;
    tc(node, &format!("qdisc add dev {interface} clsact"))?;
    for direction in ["ingress", "egress"] {
        tc(
            node,
            &format!(
                "filter add dev {interface} {direction} protocol ip u32 match u32 0 0 \
                 action mirred egress mirror dev mirror"
            ),
        )?;
    }
    client::http(&stage.client.namespace, v4()?, 3)?;
    client::http(&stage.client.namespace, format!("{}:8080", PODS[1]).parse()?, 3)?;
    for direction in ["ingress", "egress"] {
        let text = tc(node, &format!("-s filter show dev {interface} {direction}"))?;
        let packets =
            text.split_whitespace().zip(text.split_whitespace().skip(1)).find(|(_, word)| *word == "pkt");
        let packets: u32 = packets.with_context(|| text.clone())?.0.parse()?;
        // A connection is at least a SYN, a request and a FIN each way.
        assert!(packets >= 18, "{direction}: {text}");
    }
    Ok(())
}

fn tc(node: &Namespace, arguments: &str) -> Result<String> {
    let output = node.command("tc")?.args(arguments.split_whitespace()).output()?;
    anyhow::ensure!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A daemon that serves nothing attaches all the same and changes nothing.
#[test]
fn a_service_without_the_annotation_is_left_to_what_is_beneath() -> Result<()> {
    let stage = Stage::with_service(|service| service)?;
    let beneath = Beneath::new(&stage.node.namespace, v4()?, &[PODS[0].parse()?])?;
    assert_eq!(stage.daemon.services()?, []);
    client::http(&stage.client.namespace, v4()?, 5)?;
    assert_eq!(beneath.served()?, 5);
    assert_eq!(stage.flows()?, 0);
    Ok(())
}
