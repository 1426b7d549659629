//! A pod that opens connections by raw packets and never ends them, and its neighbour, which does not notice.

use crate::{
    floods::{self, NEIGHBOUR},
    stage::{SERVICE_PORT, Stage, VIP, VIP_V6, v4, v6},
    untouched::{hardware_address, mac},
    without_daemon::clients,
};
use anyhow::{Result, ensure};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use mcs_proxy_tests::{
    PacketSocket,
    client::{self, Connection},
};
use std::{
    net::IpAddr,
    ops::Range,
    time::{Duration, Instant},
};

/// Longer than a SYN-ACK takes.
const QUIET: Duration = Duration::from_millis(500);
const CLIENT: [&str; 2] = ["10.12.0.9", "fd10:12::9"];

/// The client's end of its veth, below its kernel.
struct Wire {
    socket: PacketSocket,
    /// The client's, the gateway's.
    stations: [[u8; 6]; 2],
}

/// A segment of the client's without data.
struct Segment {
    port: u16,
    sequence: u32,
    /// None: a SYN.
    acknowledges: Option<u32>,
}

impl Wire {
    fn open(stage: &Stage) -> Result<Self> {
        let client = &stage.client;
        // The client's kernel knows of none of it and would reset it all.
        client.namespace.nft(
            "add table inet deaf; add chain inet deaf input { type filter hook input priority 0; }; \
             add rule inet deaf input tcp flags & (syn | ack) == (syn | ack) drop",
        )?;
        let gateway = stage.node.namespace.ip(&format!("-o link show {}", client.host_interface))?;
        let stations = [mac(&client.namespace)?, hardware_address(&gateway)?];
        Ok(Self { socket: client.namespace.packet_socket("eth0")?, stations })
    }

    fn send(&self, v6: bool, segment: &Segment) -> Result<()> {
        let [own, gateway] = self.stations;
        let ethernet = PacketBuilder::ethernet2(own, gateway);
        let (from, to) = (CLIENT[usize::from(v6)].parse()?, [VIP, VIP_V6][usize::from(v6)].parse()?);
        let ip = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            mixed => anyhow::bail!("two families in one packet: {mixed:?}"),
        };
        let tcp = ip.tcp(segment.port, SERVICE_PORT, segment.sequence, 65_000);
        let tcp = match segment.acknowledges {
            None => tcp.syn(),
            Some(number) => tcp.ack(number),
        };
        let mut frame = Vec::new();
        tcp.write(&mut frame, &[])?;
        Ok(self.socket.send(&frame)?)
    }

    fn syns(&self, v6: bool, ports: Range<u16>) -> Result<()> {
        for port in ports {
            self.send(v6, &Segment { port, sequence: 100, acknowledges: None })?;
        }
        Ok(())
    }

    /// Completes the handshake of whatever is answered, until nothing is, and returns how many there were.
    fn confirm(&self, v6: bool) -> Result<usize> {
        let mut number = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30)
            && let Some(frame) = self.socket.receive(QUIET)?
        {
            let Ok(packet) = SlicedPacket::from_ethernet(&frame) else { continue };
            let from_vip = match packet.net {
                Some(NetSlice::Ipv4(ip)) => ip.header().source_addr().to_string() == VIP,
                Some(NetSlice::Ipv6(ip)) => ip.header().source_addr().to_string() == VIP_V6,
                Some(NetSlice::Arp(_)) | None => false,
            };
            let Some(TransportSlice::Tcp(tcp)) = packet.transport else { continue };
            if from_vip && tcp.syn() && tcp.ack() {
                let acknowledges = Some(tcp.sequence_number().wrapping_add(1));
                self.send(v6, &Segment { port: tcp.destination_port(), sequence: 101, acknowledges })?;
                number += 1;
            }
        }
        Ok(number)
    }
}

fn neighbours(stage: &Stage) -> Result<usize> {
    Ok(clients(stage, "established")?
        .iter()
        .filter(|(client, _)| NEIGHBOUR.contains(&client.as_str()))
        .count())
}

fn all_answer(connections: &mut [Connection]) -> Result<()> {
    connections.iter_mut().try_for_each(|connection| connection.ask().map(drop))
}

#[test]
fn a_flood_of_syns_ends_no_connection_of_a_neighbour_and_keeps_it_from_none() -> Result<()> {
    let (stage, neighbour) = floods::stage(&["--max-flows", "1024", "--max-transient-flows", "1024"])?;
    let wire = Wire::open(&stage)?;
    let mut connections = floods::connect(&neighbour, 2)?;
    let before = stage.flows()?;
    for round in 0..10 {
        let first = 10_000 + round * 2000;
        for v6 in [false, true] {
            wire.syns(v6, first..first + 2000)?;
        }
        all_answer(&mut connections)?;
        for service in [v4()?, v6()?] {
            client::http(&neighbour.namespace, service, 1)?;
        }
    }
    let flood = stage.flows()? - before - 20;
    // Each is a flow of ours; some may have been lost on the way.
    ensure!(flood > 20_000, "{flood} flows");
    connections.extend(floods::connect(&neighbour, 2)?);
    all_answer(&mut connections)?;
    ensure!(neighbours(&stage)? == 8, "{}", stage.daemon.show(&["connections"])?);
    Ok(())
}

#[test]
fn a_flood_of_whole_handshakes_takes_no_more_than_its_share_of_the_established_flows() -> Result<()> {
    let (stage, neighbour) = floods::stage(&["--max-flows", "256"])?;
    let wire = Wire::open(&stage)?;
    let mut connections = floods::connect(&neighbour, 2)?;
    let mut opened = 0;
    for v6 in [false, true] {
        for first in [10_000, 10_050, 10_100] {
            wire.syns(v6, first..first + 50)?;
            opened += wire.confirm(v6)?;
            all_answer(&mut connections)?;
        }
    }
    ensure!(opened > 200, "{opened} handshakes");
    let established = clients(&stage, "established")?.len() - neighbours(&stage)?;
    ensure!(established == 64, "{established} where a quarter of 256 is allowed");
    connections.extend(floods::connect(&neighbour, 4)?);
    all_answer(&mut connections)?;
    let own = neighbours(&stage)?;
    ensure!(own == 12, "{own} established: {}", stage.daemon.show(&["connections"])?.lines().count());
    Ok(())
}
