//! Reading a packet: where its headers are and what they say.

use aya_ebpf::programs::TcContext;
use core::ptr;
use mcs_proxy_ebpf::{
    abi::{Address, Port, Protocol, Verdict},
    transition,
};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;

/// The network header: all that is read of a packet that is not ours.
pub(crate) struct Network {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) protocol: u8,
    /// No options, not a fragment: the transport header follows.
    plain: bool,
}

impl Network {
    /// Whether this opens a TCP connection, as far as can be told at a glance: of a packet with options or extension
    /// headers it cannot.
    #[inline(always)]
    pub(crate) fn is_plain_syn(&self, ctx: &TcContext) -> bool {
        if !self.plain || self.protocol != Protocol::Tcp.number() {
            return false;
        }
        let transport = if self.destination.is_v4() { ETHERNET + IPV4 } else { ETHERNET + IPV6 };
        header(ctx, transport, TCP).is_some_and(|tcp| transition::is_syn(Protocol::Tcp, load(tcp, 13)))
    }

    /// Whether this may be ICMP; that it goes with its family is for whoever reads it to check.
    #[inline(always)]
    pub(crate) fn is_icmp(&self) -> bool {
        matches!(self.protocol, 1 | 58)
    }
}

/// A packet that could be translated.
pub(crate) struct Packet {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) source_port: Port,
    pub(crate) destination_port: Port,
    pub(crate) protocol: Protocol,
    /// TCP only, else 0.
    pub(crate) tcp_flags: u8,
    /// TCP only, else 0. Network byte order.
    pub(crate) sequence: u32,
    /// Offset of the transport header.
    pub(crate) transport: usize,
    /// From the IP header on.
    pub(crate) bytes: u64,
}

impl Packet {
    /// Whether this opens a TCP connection.
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        transition::is_syn(self.protocol, self.tcp_flags)
    }

    #[inline(always)]
    pub(crate) fn is_v4(&self) -> bool {
        self.transport == ETHERNET + IPV4
    }
}

/// Where the fields are that a translation changes, as offsets from the start of the packet.
pub(crate) mod field {
    use super::{ETHERNET, TCP_CHECKSUM, UDP_CHECKSUM};
    use mcs_proxy_ebpf::abi::Protocol;

    pub(crate) const V4_CHECKSUM: usize = ETHERNET + 10;
    pub(crate) const V4_SOURCE: usize = ETHERNET + 12;
    pub(crate) const V4_DESTINATION: usize = ETHERNET + 16;
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
                protocol: load(ip, 9),
                // Version 4 with five words of header; neither "more fragments" nor an offset.
                plain: load::<u8>(ip, 0) == 0x45 && fragment & 0x3fff == 0,
            })
        }
        0x86dd => {
            let ip = header(ctx, ETHERNET, IPV6).ok_or(Verdict::Malformed)?;
            Ok(Network {
                source: Address::from_v6_raw([load(ip, 8), load(ip, 16)]),
                destination: Address::from_v6_raw([load(ip, 24), load(ip, 32)]),
                protocol: load(ip, 6),
                plain: load::<u8>(ip, 0) >> 4 == 6,
            })
        }
        _ => Err(Verdict::NotIp),
    }
}

/// Reads the transport header behind it.
#[inline(always)]
pub(crate) fn transport(ctx: &TcContext, network: Network) -> Result<Packet, Verdict> {
    if !network.plain {
        return Err(Verdict::Unsupported);
    }
    let transport = if network.destination.is_v4() { ETHERNET + IPV4 } else { ETHERNET + IPV6 };
    let (protocol, tcp_flags, sequence, ports) = match Protocol::from_number(network.protocol) {
        Some(Protocol::Tcp) => {
            let tcp = header(ctx, transport, TCP).ok_or(Verdict::Malformed)?;
            (Protocol::Tcp, load::<u8>(tcp, 13), load::<u32>(tcp, 4), load::<u32>(tcp, 0))
        }
        Some(Protocol::Udp) => {
            let udp = header(ctx, transport, UDP).ok_or(Verdict::Malformed)?;
            (Protocol::Udp, 0, 0, load::<u32>(udp, 0))
        }
        Some(Protocol::Sctp) | None => return Err(Verdict::Unsupported),
    };
    Ok(Packet {
        source: network.source,
        destination: network.destination,
        source_port: Port::from_raw(ports as u16),
        destination_port: Port::from_raw((ports >> 16) as u16),
        protocol,
        tcp_flags,
        sequence,
        transport,
        bytes: u64::from(ctx.len()).saturating_sub(ETHERNET as u64),
    })
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

/// Stores a field of a header that [`header`] has checked; see [`load`].
#[inline(always)]
pub(crate) fn store<T: Copy>(header: *mut u8, offset: usize, value: T) {
    // SAFETY: as in `load`.
    unsafe { *header.add(offset).cast::<T>() = value };
}
