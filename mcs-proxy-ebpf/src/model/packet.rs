use crate::{
    abi::{Address, Port, Protocol, Tuple},
    transition::is_syn,
};

/// A packet: what of it the packet path reads or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    pub body: Body,
    /// From the IP header on.
    pub bytes: u64,
}

/// What stands behind the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Segment(Segment),
    /// An ICMP error (no redirect) of either version.
    Error(Quote),
    /// An ICMP redirect of either version.
    Redirect(Quote),
    EchoRequest,
    EchoReply,
    /// A transport that is not translated.
    Other,
}

/// A TCP segment, a UDP datagram or an SCTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub protocol: Protocol,
    pub source_port: Port,
    pub destination_port: Port,
    /// UDP: 0. SCTP's first chunk as the flags that mean the same, see
    /// [`flags_of_chunk`](crate::transition::flags_of_chunk).
    pub tcp_flags: u8,
    /// UDP: 0. SCTP: the initiate tag of an INIT, else 0. Network byte order, as in [`Flow::isn`](crate::abi::Flow::isn).
    pub sequence: u32,
    /// TCP only, else 0. Network byte order.
    pub acknowledgment: u32,
    /// How long the transport header is: TCP's may have options.
    pub header: u32,
}

/// The packet that an ICMP message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub source: Address,
    pub destination: Address,
    pub protocol: Protocol,
    pub source_port: Port,
    pub destination_port: Port,
}

impl Segment {
    /// The flow of a packet from a pod, or what it would be on the wire if it were not translated.
    pub(super) const fn key(&self, packet: &Packet) -> Tuple {
        let protocol = self.protocol.number();
        Tuple::new(packet.source, self.source_port, packet.destination, self.destination_port, protocol)
    }

    /// Whether a flow may begin with this: a datagram may be the first.
    pub(super) fn may_open(&self) -> bool {
        self.protocol == Protocol::Udp || is_syn(self.protocol, self.tcp_flags)
    }
}

impl Packet {
    /// How long the IP header is.
    #[must_use]
    pub const fn network_header(&self) -> u64 {
        if self.destination.is_v4() { 20 } else { 40 }
    }
}
