//! Reading a packet: where its headers are and what they say.

use crate::{
    aside::{self, forget, words},
    sctp,
    shape::Shape,
};
use aya_ebpf::programs::TcContext;
use core::ptr;
use mcs_proxy_ebpf::{
    abi::{Address, Port, Protocol, Verdict},
    transition,
};

pub(crate) const ETHERNET: usize = 14;
pub(crate) const IPV4: usize = 20;
pub(crate) const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;

/// The network header: all that is read of a packet that is not ours.
pub(crate) struct Network {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) protocol: u8,
    pub(crate) v4: bool,
    /// TCP or UDP whose header follows: no options, not a fragment.
    pub(crate) plain: bool,
    /// IPv4's total length, IPv6's payload length, as they lie in memory.
    length: u16,
}

impl Network {
    /// Whether this may open a connection, as far as can be told at a glance: a datagram may, and an odd packet.
    #[inline(always)]
    pub(crate) fn may_open(&self, ctx: &TcContext) -> bool {
        if !self.plain {
            return !self.is_icmp();
        }
        self.protocol == Protocol::Udp.number()
            || self.protocol == Protocol::Tcp.number()
                && header(ctx, plain_transport(self.v4), TCP)
                    .is_some_and(|tcp| transition::is_syn(Protocol::Tcp, load(tcp, 13)))
    }

    /// Whether this may be ICMP; that it goes with its family is for whoever reads it to check.
    #[inline(always)]
    pub(crate) fn is_icmp(&self) -> bool {
        matches!(self.protocol, 1 | 58)
    }

    /// Whether it is IPv6 with a mapped address: our notation for IPv4, and nothing that may stand in a packet
    /// (RFC 4291, section 2.5.5.2).
    #[inline(always)]
    pub(crate) fn is_mapped(&self) -> bool {
        !self.v4 && (self.source.is_v4() || self.destination.is_v4())
    }

    /// How long the packet is, counted from the IP header on.
    #[inline(always)]
    pub(crate) fn bytes(&self, ctx: &TcContext) -> u32 {
        ctx.len().saturating_sub(ETHERNET as u32)
    }

    /// How long the packet says it is, from the Ethernet header on; `Malformed` if it has less.
    ///
    /// A length of zero stands for one that the field cannot hold: segments yet to be cut (BIG TCP), jumbograms.
    #[inline(always)]
    pub(crate) fn end(&self, ctx: &TcContext) -> Result<u32, Verdict> {
        let said = u32::from(u16::from_be(self.length));
        let header = if self.v4 { 0 } else { IPV6 as u32 };
        if said == 0 && ctx.len() > ETHERNET as u32 + header + u32::from(u16::MAX) {
            return Ok(ctx.len());
        }
        let end = ETHERNET as u32 + header + said;
        if end > ctx.len() { Err(Verdict::Malformed) } else { Ok(end) }
    }
}

/// A packet that could be translated.
pub(crate) struct Packet {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) source_port: Port,
    pub(crate) destination_port: Port,
    pub(crate) protocol: Protocol,
    pub(crate) v4: bool,
    /// UDP: 0. SCTP's first chunk as the flags that mean the same, see [`transition::flags_of_chunk`].
    pub(crate) tcp_flags: u8,
    /// UDP: 0. SCTP: the tag of an INIT. Network byte order.
    pub(crate) sequence: u32,
    /// Offset of the transport header.
    pub(crate) transport: u32,
    /// From the IP header on.
    pub(crate) bytes: u32,
}

impl Packet {
    /// Whether this opens a connection: TCP's SYN, SCTP's INIT. (A datagram has no flags.)
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        transition::is_syn(self.protocol, self.tcp_flags)
    }

    /// Whether a flow may begin with this: a datagram may be the first.
    #[inline(always)]
    pub(crate) fn may_open(&self) -> bool {
        matches!(self.protocol, Protocol::Udp) || self.is_syn()
    }
}

/// Where the transport header is if nothing stands before it.
#[inline(always)]
pub(crate) const fn plain_transport(v4: bool) -> usize {
    if v4 { ETHERNET + IPV4 } else { ETHERNET + IPV6 }
}

/// Where the fields are that a translation changes, as offsets from the start of the packet.
pub(crate) mod field {
    use super::{ETHERNET, TCP_CHECKSUM, UDP_CHECKSUM};
    use mcs_proxy_ebpf::abi::Protocol;

    pub(crate) const V4_CHECKSUM: usize = ETHERNET + 10;
    pub(crate) const V6_SOURCE: usize = ETHERNET + 8;
    pub(crate) const V6_DESTINATION: usize = ETHERNET + 24;

    /// Of the transport's checksum, from the transport header on.
    #[inline(always)]
    pub(crate) const fn checksum(protocol: Protocol) -> usize {
        match protocol {
            Protocol::Tcp => TCP_CHECKSUM,
            Protocol::Udp | Protocol::Sctp => UDP_CHECKSUM,
        }
    }
}

const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Reads the network header.
#[inline(always)]
pub(crate) fn network(ctx: &TcContext) -> Result<Network, Verdict> {
    // SAFETY: the verifier translates this to a load of the socket buffer's field.
    if unsafe { (*ctx.skb.skb).vlan_present } != 0 {
        return Err(Verdict::NotIp);
    }
    let ethernet = header(ctx, 0, ETHERNET).ok_or(Verdict::NotIp)?;
    match u16::from_be(load(ethernet, 12)) {
        0x0800 => {
            let ip = header(ctx, ETHERNET, IPV4).ok_or(Verdict::Malformed)?;
            let fragment = u16::from_be(load::<u16>(ip, 6));
            Ok(Network {
                source: Address::from_v4_raw(load(ip, 12)),
                destination: Address::from_v4_raw(load(ip, 16)),
                v4: true,
                protocol: load(ip, 9),
                // Version 4 with five words of header; neither "more fragments" nor an offset.
                plain: load::<u8>(ip, 0) == 0x45 && fragment & 0x3fff == 0 && is_plain(load(ip, 9)),
                length: load(ip, 2),
            })
        }
        0x86dd => {
            let ip = header(ctx, ETHERNET, IPV6).ok_or(Verdict::Malformed)?;
            Ok(Network {
                source: Address::from_v6_raw([load(ip, 8), load(ip, 16)]),
                destination: Address::from_v6_raw([load(ip, 24), load(ip, 32)]),
                v4: false,
                protocol: load(ip, 6),
                plain: load::<u8>(ip, 0) >> 4 == 6 && is_plain(load(ip, 6)),
                length: load(ip, 4),
            })
        }
        _ => Err(Verdict::NotIp),
    }
}

#[inline(always)]
const fn is_plain(protocol: u8) -> bool {
    protocol == Protocol::Tcp.number() || protocol == Protocol::Udp.number()
}

/// Reads the transport header of a plain packet.
#[inline(always)]
pub(crate) fn transport(ctx: &TcContext, network: Network) -> Result<Packet, Verdict> {
    let offset = plain_transport(network.v4);
    let length = network.end(ctx)?.checked_sub(offset as u32).ok_or(Verdict::Malformed)?;
    let (protocol, start) = if network.protocol == Protocol::Tcp.number() {
        let tcp = header(ctx, offset, TCP).ok_or(Verdict::Malformed)?;
        let size = u16::from(load::<u8>(tcp, 12));
        (Protocol::Tcp, Start { ports: load(tcp, 0), sequence: load(tcp, 4), flags: load(tcp, 13), size })
    } else {
        let udp = header(ctx, offset, UDP).ok_or(Verdict::Malformed)?;
        (Protocol::Udp, Start { ports: load(udp, 0), sequence: 0, flags: 0, size: load(udp, 4) })
    };
    if !start.is_sound(protocol, length, false) {
        return Err(Verdict::Malformed);
    }
    Ok(packet(ctx, network, protocol, offset, start))
}

/// Reads the transport header of any packet, where the walk has found it. What [`Packet`] has no field for is kept
/// [`aside`].
#[inline(always)]
pub(crate) fn anywhere(ctx: &TcContext, network: Network, shape: Shape) -> Result<Packet, Verdict> {
    if shape.is_later() {
        return Err(Verdict::Unsupported);
    }
    let protocol = Protocol::from_number(shape.protocol()).ok_or(Verdict::Unsupported)?;
    let offset = shape.transport();
    let length = network.end(ctx)?.checked_sub(offset as u32).ok_or(Verdict::Malformed)?;
    let mut start = match protocol {
        Protocol::Tcp => {
            let tcp = words(ctx.skb.skb, offset as u32, 16).ok_or(Verdict::Malformed)?;
            let (size, flags) = (u16::from(tcp[3] as u8), (tcp[3] >> 8) as u8);
            Start { ports: tcp[0], sequence: tcp[1], flags, size }
        }
        Protocol::Udp => {
            let udp = words(ctx.skb.skb, offset as u32, 8).ok_or(Verdict::Malformed)?;
            Start { ports: udp[0], sequence: 0, flags: 0, size: udp[1] as u16 }
        }
        Protocol::Sctp => sctp::start(ctx, shape, length)?,
    };
    if !start.is_sound(protocol, length, shape.is_first()) {
        return Err(Verdict::Malformed);
    }
    aside::keep(shape, length);
    let said = forget(u64::from(start.flags) | (u64::from(start.sequence) << 32));
    (start.flags, start.sequence) = (said as u8, (said >> 32) as u32);
    Ok(packet(ctx, network, protocol, offset, start))
}

#[inline(always)]
fn packet(ctx: &TcContext, network: Network, protocol: Protocol, transport: usize, start: Start) -> Packet {
    Packet {
        source: network.source,
        destination: network.destination,
        source_port: Port::from_raw(start.ports as u16),
        destination_port: Port::from_raw((start.ports >> 16) as u16),
        protocol,
        v4: network.v4,
        tcp_flags: start.flags,
        sequence: start.sequence,
        transport: transport as u32,
        bytes: network.bytes(ctx),
    }
}

/// What is read of a transport header.
pub(crate) struct Start {
    pub(crate) ports: u32,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    /// TCP: the byte that has the header's length. UDP: the length, as it lies in memory.
    pub(crate) size: u16,
}

impl Start {
    /// Whether its lengths fit the packet's, which is `length` from this header on.
    #[inline(always)]
    fn is_sound(&self, protocol: Protocol, length: u32, is_first_fragment: bool) -> bool {
        match protocol {
            Protocol::Tcp => {
                let header = u32::from(self.size >> 4) * 4;
                header >= TCP as u32 && header <= length
            }
            // A first fragment tells the length of the whole.
            Protocol::Udp => {
                let said = u32::from(u16::from_be(self.size));
                said >= UDP as u32 && length >= UDP as u32 && (said <= length || is_first_fragment)
            }
            Protocol::Sctp => true,
        }
    }
}

/// A pointer to `size` bytes at `offset`, once they are known to be there. Bytes that lie outside of the linear
/// part of the packet are pulled in.
///
/// A helper that changes the packet invalidates the pointer; the verifier sees to it that it is then not used.
#[inline(always)]
pub(crate) fn header(ctx: &TcContext, offset: usize, size: usize) -> Option<*mut u8> {
    if let Some(start) = linear(ctx, offset, size) {
        return Some(start);
    }
    ctx.pull_data((offset + size) as u32).ok()?;
    linear(ctx, offset, size)
}

#[inline(always)]
fn linear(ctx: &TcContext, offset: usize, size: usize) -> Option<*mut u8> {
    let skb = ctx.skb.skb;
    // Volatile, or the compiler keeps `data_end` from one check to the next and narrows it to the field's 32 bits in
    // between, after which the verifier no longer knows it for the end of the packet.
    // SAFETY: the verifier translates these to loads of the socket buffer's pointers.
    let (data, end) = unsafe {
        (
            ptr::read_volatile(&raw const (*skb).data) as usize,
            ptr::read_volatile(&raw const (*skb).data_end) as usize,
        )
    };
    if data + offset + size > end {
        return None;
    }
    Some((data + offset) as *mut u8)
}

/// Loads a field of a header that [`header`] has checked.
///
/// Fields behind an Ethernet header are not aligned. Where the kernel loads programs without strict alignment (it
/// checks that at load) one load is right; `read_unaligned` would become a load for every byte.
#[inline(always)]
pub(crate) fn load<T: Copy>(header: *mut u8, offset: usize) -> T {
    // SAFETY: the verifier refuses the program unless the load lies within what was checked.
    unsafe { *header.add(offset).cast::<T>() }
}
