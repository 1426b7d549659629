//! Packets as bytes, each checksum computed anew by a library that knows nothing of ours.

use super::{
    sctp,
    stage::{SCTP, TCP, UDP},
};
use crate::wire;
use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep};
use mcs_proxy_ebpf::{
    abi::{Address, Port, Protocol, Verdict},
    model::{Body, Packet, Quote, Segment},
    transition::{SCTP_INIT, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, flags_of_chunk},
};
use std::net::{IpAddr, SocketAddr};

const ETHERNET: usize = 14;
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const WINDOW: u16 = 64_000;
/// Payload of a packet that an error quotes whole.
const QUOTED: u64 = 12;

/// A packet and what the model does not know of it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) packet: Packet,
    /// ICMP's type and code.
    kind: [u8; 2],
    window: u16,
    /// Sent back: the MAC addresses have changed places.
    returned: bool,
    /// What an error quotes, unless it is a whole packet of the tuple that it names.
    quoted: Option<Vec<u8>>,
}

impl Frame {
    fn new(source: IpAddr, destination: IpAddr, body: Body, behind: u64) -> Self {
        let header = if source.is_ipv4() { 20 } else { 40 };
        let packet =
            Packet { source: source.into(), destination: destination.into(), body, bytes: header + behind };
        Self { packet, kind: [0, 0], window: WINDOW, returned: false, quoted: None }
    }

    pub(super) fn segment(
        protocol: u8,
        from: SocketAddr,
        to: SocketAddr,
        flags: &str,
        sequence: u32,
        payload: u8,
    ) -> Self {
        let segment = segment(protocol, from, to, flags, sequence);
        let behind = u64::from(segment.header) + u64::from(payload);
        Self::new(from.ip(), to.ip(), Body::Segment(segment), behind)
    }

    /// An error about a packet between the two, which is quoted whole.
    pub(super) fn error(from: IpAddr, to: IpAddr, kind: u8, protocol: u8, about: [SocketAddr; 2]) -> Self {
        let quote = quote(protocol, about);
        let network = if from.is_ipv4() { 20 } else { 40 };
        let transport = u64::from(header_of(protocol, "A"));
        let kinds =
            if from.is_ipv4() { [[3, 1], [3, 3], [3, 4], [11, 0]] } else { [[1, 4], [1, 0], [2, 0], [3, 0]] };
        let frame = Self::new(from, to, Body::Error(quote), 8 + network + transport + QUOTED);
        Self { kind: kinds[usize::from(kind)], ..frame }
    }

    pub(super) fn redirect(from: IpAddr, to: IpAddr, protocol: u8, about: [SocketAddr; 2]) -> Self {
        let mut frame = Self::new(from, to, Body::Redirect(quote(protocol, about)), 0);
        frame.packet.bytes = (frame.bytes().len() - ETHERNET) as u64;
        frame
    }

    pub(super) fn ping(from: IpAddr, to: IpAddr) -> Self {
        let kind = if from.is_ipv4() { [8, 0] } else { [128, 0] };
        Self { kind, ..Self::new(from, to, Body::EchoRequest, 8 + 5) }
    }

    /// This frame as it leaves a program that has made `packet` of it.
    pub(super) fn after(&self, verdict: Verdict, packet: Packet) -> Self {
        let v4 = packet.source.is_v4();
        let mut after = Self { packet, ..self.clone() };
        if matches!(verdict, Verdict::Rejected | Verdict::Ended) {
            (after.returned, after.window) = (true, 0);
            if matches!(after.packet.body, Body::Error(_)) {
                after.kind = if v4 { [3, 3] } else { [1, 4] };
                let length = usize::try_from(self.packet.network_header()).unwrap() + 8;
                after.quoted = Some(self.bytes()[ETHERNET..ETHERNET + length].to_vec());
            }
        } else if matches!(verdict, Verdict::HairpinForwarded | Verdict::HairpinReplied) {
            after.returned = true;
        } else if verdict == Verdict::EchoReplied {
            after.returned = true;
            after.kind = if v4 { [0, 0] } else { [129, 0] };
        }
        after
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let (source, destination) = (self.packet.source.to_ip(), self.packet.destination.to_ip());
        let [to, from] = if self.returned { [MACS[1], MACS[0]] } else { MACS };
        let ethernet = PacketBuilder::ethernet2(from, to);
        let network = match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            mixed => panic!("two families in one packet: {mixed:?}"),
        };
        let mut bytes = Vec::new();
        let icmp = |network: PacketBuilderStep<IpHeaders>, body: &[u8], rest, bytes: &mut Vec<u8>| {
            let [kind, code] = self.kind;
            if source.is_ipv4() {
                network.icmpv4_raw(kind, code, rest).write(bytes, body).unwrap();
            } else {
                network.icmpv6_raw(kind, code, rest).write(bytes, body).unwrap();
            }
        };
        let payload = |header: u32| {
            let length = self.packet.bytes - self.packet.network_header() - u64::from(header);
            (0..length).map(|index| index as u8).collect::<Vec<_>>()
        };
        match &self.packet.body {
            Body::Segment(segment) if segment.protocol == Protocol::Tcp => {
                let (from, to) = (segment.source_port.get(), segment.destination_port.get());
                let mut tcp = network.tcp(from, to, u32::from_be(segment.sequence), self.window);
                let has = |flag| segment.tcp_flags & flag != 0;
                if has(TCP_SYN) {
                    tcp = tcp.syn();
                }
                if has(TCP_ACK) {
                    tcp = tcp.ack(u32::from_be(segment.acknowledgment));
                }
                if has(TCP_FIN) {
                    tcp = tcp.fin();
                }
                if has(TCP_RST) {
                    tcp = tcp.rst();
                }
                tcp.write(&mut bytes, &payload(segment.header)).unwrap();
            }
            Body::Segment(segment) if segment.protocol == Protocol::Sctp => {
                let packet = sctp::bytes(segment, &payload(segment.header));
                network.write(&mut bytes, IpNumber::SCTP, &packet).unwrap();
            }
            Body::Segment(segment) => {
                let udp = network.udp(segment.source_port.get(), segment.destination_port.get());
                udp.write(&mut bytes, &payload(segment.header)).unwrap();
            }
            Body::Error(quote) => {
                let quoted = self.quoted.clone().unwrap_or_else(|| whole(quote));
                // The MTU, in whichever half of the word it belongs: of no meaning here.
                let rest = if self.quoted.is_some() { [0; 4] } else { [0, 0, 5, 0x14] };
                icmp(network, &quoted, rest, &mut bytes);
            }
            Body::Redirect(quote) => {
                let about = match quote.protocol {
                    Protocol::Tcp => wire::Segment::tcp(from_of(quote), to_of(quote), "A", 7),
                    Protocol::Udp | Protocol::Sctp => wire::Segment::udp(from_of(quote), to_of(quote)),
                };
                bytes = wire::redirect(source, &about, true);
            }
            Body::EchoRequest | Body::EchoReply => icmp(network, &payload(8), [0x12, 0x34, 0, 1], &mut bytes),
            Body::Other => panic!("conversations have no such packet"),
        }
        bytes
    }
}

/// What was sent between the two, from the IP header on.
fn whole(quote: &Quote) -> Vec<u8> {
    let protocol = quote.protocol.number();
    let quoted = Frame::segment(protocol, from_of(quote), to_of(quote), "A", 7, QUOTED as u8);
    let mut bytes = quoted.bytes().split_off(ETHERNET);
    if protocol == SCTP {
        // A quote's is left as it is, whatever ports are translated: nobody checks it.
        let start = usize::try_from(quoted.packet.network_header()).unwrap() + sctp::CHECKSUM;
        bytes[start..start + 4].fill(0);
    }
    bytes
}

fn from_of(quote: &Quote) -> SocketAddr {
    socket(&quote.source, quote.source_port)
}

fn to_of(quote: &Quote) -> SocketAddr {
    socket(&quote.destination, quote.destination_port)
}

fn socket(address: &Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.to_ip(), port.get())
}

fn segment(protocol: u8, from: SocketAddr, to: SocketAddr, flags: &str, sequence: u32) -> Segment {
    let bits = [('F', TCP_FIN), ('S', TCP_SYN), ('R', TCP_RST), ('A', TCP_ACK)];
    let tcp_flags = bits.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, bit)| bit).sum();
    let (tcp_flags, sequence) = match protocol {
        TCP => (tcp_flags, sequence),
        SCTP if sctp::chunk(flags) == SCTP_INIT => (flags_of_chunk(SCTP_INIT), sequence),
        SCTP => (flags_of_chunk(sctp::chunk(flags)), 0),
        _ => (0, 0),
    };
    Segment {
        protocol: Protocol::from_number(protocol).unwrap(),
        source_port: Port::new(from.port()),
        destination_port: Port::new(to.port()),
        tcp_flags,
        sequence: sequence.to_be(),
        acknowledgment: if protocol == TCP && flags.contains('A') { 1_u32.to_be() } else { 0 },
        header: header_of(protocol, flags),
    }
}

/// How long the transport header is.
fn header_of(protocol: u8, flags: &str) -> u32 {
    match protocol {
        TCP => 20,
        SCTP => sctp::header(sctp::chunk(flags)),
        _ => 8,
    }
}

fn quote(protocol: u8, [from, to]: [SocketAddr; 2]) -> Quote {
    assert!(matches!(protocol, TCP | UDP | SCTP));
    Quote {
        source: from.ip().into(),
        destination: to.ip().into(),
        protocol: Protocol::from_number(protocol).unwrap(),
        source_port: Port::new(from.port()),
        destination_port: Port::new(to.port()),
    }
}
