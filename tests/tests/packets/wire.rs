//! Packets as the tests see them: built and parsed by a library that knows nothing of ours, checksums verified.

use etherparse::{
    IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
    checksum::{u32_16bit_word, u64_16bit_word},
};
use std::net::{IpAddr, SocketAddr};

/// One TCP segment or UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp { flags: &'static str, sequence: u32 },
    Udp,
}

impl Segment {
    pub(crate) fn tcp(from: SocketAddr, to: SocketAddr, flags: &'static str, sequence: u32) -> Self {
        Self { from, to, kind: Kind::Tcp { flags, sequence }, payload: b"tcp payload".to_vec() }
    }

    pub(crate) fn udp(from: SocketAddr, to: SocketAddr) -> Self {
        Self { from, to, kind: Kind::Udp, payload: b"udp payload!".to_vec() }
    }

    /// The answer to this one, with the flags and from the address given.
    pub(crate) fn answer(&self, from: SocketAddr, flags: &'static str) -> Self {
        let kind = match self.kind {
            Kind::Tcp { .. } => Kind::Tcp { flags, sequence: 77 },
            Kind::Udp => Kind::Udp,
        };
        Self { from, to: self.from, kind, payload: b"answer".to_vec() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let network = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            mixed => panic!("two families in one packet: {mixed:?}"),
        };
        let mut bytes = Vec::new();
        match self.kind {
            Kind::Tcp { flags, sequence } => {
                let mut tcp = network.tcp(self.from.port(), self.to.port(), sequence, 64_000);
                for flag in flags.chars() {
                    tcp = match flag {
                        'S' => tcp.syn(),
                        'A' => tcp.ack(1),
                        'F' => tcp.fin(),
                        'R' => tcp.rst(),
                        other => panic!("no such flag: {other}"),
                    };
                }
                tcp.write(&mut bytes, &self.payload).unwrap();
            }
            Kind::Udp => {
                network.udp(self.from.port(), self.to.port()).write(&mut bytes, &self.payload).unwrap();
            }
        }
        bytes
    }

    /// Reads a packet back, and fails unless both of its checksums are right.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let packet = SlicedPacket::from_ethernet(bytes).expect("a well-formed packet");
        let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref().expect("a network header") {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
                (header.source.into(), header.destination.into())
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                (header.source.into(), header.destination.into())
            }
            other => panic!("not IP: {other:?}"),
        };
        let segment = |from_port, to_port, kind, payload: &[u8]| Self {
            from: SocketAddr::new(from, from_port),
            to: SocketAddr::new(to, to_port),
            kind,
            payload: payload.to_vec(),
        };
        match packet.transport.as_ref().expect("a transport header") {
            TransportSlice::Tcp(tcp) => {
                let flags = match (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst()) {
                    (true, false, false, false) => "S",
                    (true, true, false, false) => "SA",
                    (false, true, false, false) => "A",
                    (false, true, true, false) => "AF",
                    (false, false, false, true) => "R",
                    (false, true, false, true) => "AR",
                    other => panic!("flags the tests do not use: {other:?}"),
                };
                verify(bytes, from, to, IpNumber::TCP);
                let kind = Kind::Tcp { flags, sequence: tcp.sequence_number() };
                segment(tcp.source_port(), tcp.destination_port(), kind, tcp.payload())
            }
            TransportSlice::Udp(udp) => {
                if udp.checksum() == 0 {
                    assert!(
                        from.is_ipv4(),
                        "a UDP checksum of zero is not allowed over IPv6 (RFC 8200, 8.1)"
                    );
                } else {
                    verify(bytes, from, to, IpNumber::UDP);
                }
                segment(udp.source_port(), udp.destination_port(), Kind::Udp, udp.payload())
            }
            other @ (TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => {
                panic!("neither TCP nor UDP: {other:?}")
            }
        }
    }
}

/// The sum over pseudo header and transport must be all ones (RFC 1071).
pub(crate) fn verify(bytes: &[u8], from: IpAddr, to: IpAddr, protocol: IpNumber) {
    let (offset, pseudo) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (34, [&from.octets()[..], &to.octets()].concat()),
        (IpAddr::V6(from), IpAddr::V6(to)) => (54, [&from.octets()[..], &to.octets()].concat()),
        mixed => panic!("two families in one packet: {mixed:?}"),
    };
    let transport = &bytes[offset..];
    let length = u32::try_from(transport.len()).unwrap();
    let start = u32_16bit_word::add_slice(0, &length.to_be_bytes());
    let start = u32_16bit_word::add_slice(start, &[0, protocol.0]);
    let sum = u64_16bit_word::add_slice(u64::from(u32_16bit_word::add_slice(start, &pseudo)), transport);
    assert_eq!(u64_16bit_word::ones_complement(sum), 0, "transport checksum of {bytes:02x?}");
}

/// The raw bytes of the UDP checksum.
pub(crate) fn udp_checksum(bytes: &[u8]) -> [u8; 2] {
    let offset = if bytes[12..14] == [0x08, 0x00] { 40 } else { 60 };
    [bytes[offset], bytes[offset + 1]]
}

pub(crate) fn set_udp_checksum(bytes: &mut [u8], checksum: [u8; 2]) {
    let offset = if bytes[12..14] == [0x08, 0x00] { 40 } else { 60 };
    bytes[offset..offset + 2].copy_from_slice(&checksum);
}

/// An ICMP redirect about a packet, as Linux sends it; over IPv6 with the target's MAC address or without.
pub(crate) fn redirect(gateway: IpAddr, about: &Segment, with_mac: bool) -> Vec<u8> {
    let packet = &about.bytes()[14..];
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let mut bytes = Vec::new();
    match (gateway, about.from.ip(), about.to.ip()) {
        (IpAddr::V4(gateway), IpAddr::V4(client), IpAddr::V4(target)) => {
            let icmp = ethernet.ipv4(gateway.octets(), client.octets(), 64);
            icmp.icmpv4_raw(5, 1, target.octets()).write(&mut bytes, packet).unwrap();
        }
        (IpAddr::V6(gateway), IpAddr::V6(client), IpAddr::V6(target)) => {
            let mut body = [target.octets(), target.octets()].concat();
            if with_mac {
                body.extend([2, 1, 2, 0, 0, 0, 0, 9]);
            }
            body.extend([4, u8::try_from(packet.len().div_ceil(8) + 1).unwrap(), 0, 0, 0, 0, 0, 0]);
            body.extend(packet);
            let icmp = ethernet.ipv6(gateway.octets(), client.octets(), 255);
            icmp.icmpv6_raw(137, 0, [0; 4]).write(&mut bytes, &body).unwrap();
        }
        mixed => panic!("two families in one packet: {mixed:?}"),
    }
    bytes
}
