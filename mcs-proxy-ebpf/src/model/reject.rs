//! What a pod is told when it calls a frontend that has no backend, and when its connection was ended.

use super::{Body, Here, Model, Packet, Quote, Segment};
use crate::{
    abi::{Protocol, Verdict},
    transition::{TCP_ACK, TCP_RST},
};

const TCP_HEADER: u32 = 20;
const ICMP_HEADER: u64 = 8;
/// What a quote has of the transport header.
const QUOTED: u64 = 8;

impl Model {
    /// Turns the packet into the answer to it: a RST to TCP, port unreachable to the rest.
    pub(super) fn refuse(&mut self, packet: &mut Packet, here: Here) -> Verdict {
        let Body::Segment(segment) = packet.body.clone() else { return Verdict::NoBackend };
        let network = packet.network_header();
        let (body, bytes) = if segment.protocol == Protocol::Tcp {
            // The SYN occupies a number, and so does every byte behind the header.
            let occupied = packet.bytes - network - u64::from(segment.header) + 1;
            let acknowledgment = u32::from_be(segment.sequence).wrapping_add(occupied as u32).to_be();
            let reset = if segment.tcp_flags & TCP_ACK == 0 {
                reset(&segment, TCP_RST | TCP_ACK, 0, acknowledgment)
            } else {
                // What acknowledges says which number is expected.
                reset(&segment, TCP_RST, segment.acknowledgment, 0)
            };
            (Body::Segment(reset), network + u64::from(TCP_HEADER))
        } else {
            let bytes = network + ICMP_HEADER + network + QUOTED;
            if packet.bytes < bytes {
                return Verdict::NoBackend;
            }
            (Body::Error(quote(packet, &segment)), bytes)
        };
        if !self.tables.take_reject(here.interface, here.now) {
            return Verdict::RejectLimited;
        }
        (packet.source, packet.destination) = (packet.destination, packet.source);
        (packet.body, packet.bytes) = (body, bytes);
        Verdict::Rejected
    }
}

const fn reset(segment: &Segment, tcp_flags: u8, sequence: u32, acknowledgment: u32) -> Segment {
    Segment {
        protocol: Protocol::Tcp,
        source_port: segment.destination_port,
        destination_port: segment.source_port,
        tcp_flags,
        sequence,
        acknowledgment,
        header: TCP_HEADER,
    }
}

const fn quote(packet: &Packet, segment: &Segment) -> Quote {
    Quote {
        source: packet.source,
        destination: packet.destination,
        protocol: segment.protocol,
        source_port: segment.source_port,
        destination_port: segment.destination_port,
    }
}
