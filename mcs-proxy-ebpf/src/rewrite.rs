//! Changing one end of a packet, checksums included.

use crate::{
    packet::{Network, Packet, field, header, load, plain_transport},
    sctp, wire,
};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_update, bpf_l4_csum_replace, bpf_skb_store_bytes},
    programs::TcContext,
};
use mcs_proxy_ebpf::{
    abi::{Address, Port, Protocol, Verdict},
    checksum,
};

/// Since Linux 6.16 (commit ead7f9b8de65), and not in aya's bindings yet: an address of IPv6 has no header checksum
/// that would cancel its change, so `skb->csum` of a `CHECKSUM_COMPLETE` packet must be left as it is.
const BPF_F_IPV6: u64 = 1 << 7;

/// Which end of the packet is changed.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Puts an address and port in the place of the packet's own. `ODD`: wherever its transport header is, SCTP's too.
///
/// The helper for checksums knows about offloads: under `CHECKSUM_PARTIAL` only the pseudo header is in the checksum, so
/// ports must not be counted, and a UDP checksum of zero (none) stays zero while one that becomes zero is written as
/// `0xffff` (RFC 768).
#[inline(always)]
pub(crate) fn rewrite<const ODD: bool>(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    address: &Address,
    port: Port,
) -> Result<(), Verdict> {
    let (old_address, old_port) = match end {
        End::Source => (&packet.source, packet.source_port),
        End::Destination => (&packet.destination, packet.destination_port),
    };
    if address.is_v4() != packet.v4 {
        return Err(Verdict::Corrupt);
    }
    let difference = checksum::difference(old_address, address);
    if ODD && matches!(packet.protocol, Protocol::Sctp) {
        compensate(ctx, packet.v4, difference);
    } else {
        update_checksum(ctx, packet, difference)?;
    }
    if ODD {
        shift::<true>(ctx, packet, end, port)?;
    } else {
        update_port_checksum(ctx, packet, old_port, port)?;
    }
    write(ctx, packet.v4, end, address, difference, if ODD { None } else { Some(port) })
}

/// Puts an address in the place of the packet's own, of which nothing else is known: a later fragment.
#[inline(always)]
pub(crate) fn rewrite_address(
    ctx: &TcContext,
    network: &Network,
    end: End,
    address: &Address,
) -> Result<(), Verdict> {
    if address.is_v4() != network.v4 {
        return Err(Verdict::Corrupt);
    }
    let old = match end {
        End::Source => &network.source,
        End::Destination => &network.destination,
    };
    let difference = checksum::difference(old, address);
    compensate(ctx, network.v4, difference);
    write(ctx, network.v4, end, address, difference, None)
}

/// Where no checksum in the packet cancels the change of an address, `skb->csum` follows it.
#[inline(always)]
fn compensate(ctx: &TcContext, v4: bool, difference: u32) {
    if !v4 {
        // SAFETY: the context is the one the kernel gave us. An error says that there is no such sum.
        let _none = unsafe { bpf_csum_update(ctx.skb.skb, difference) };
    }
}

/// Writes the address and the checksum of the IPv4 header, and with `port` that one, right behind the header.
///
/// By the helper, with what lies between as it is, and nowhere through a pointer: if a program may write through pointers,
/// the kernel has it begin every packet with a look at whether that must be copied first, and most packets are none of
/// ours.
#[inline(always)]
fn write(
    ctx: &TcContext,
    v4: bool,
    end: End,
    address: &Address,
    difference: u32,
    port: Option<Port>,
) -> Result<(), Verdict> {
    let ports_size = if port.is_some() { 4 } else { 0 };
    let mut words = [0; 5];
    if v4 {
        // From the lifetime before the checksum on.
        let start = field::V4_CHECKSUM - 2;
        let old = header(ctx, start, 12 + ports_size).ok_or(Verdict::RewriteFailed)?;
        let before: u32 = load(old, 0);
        let checksum = checksum::update((before >> 16) as u16, difference);
        words[0] = before & 0xffff | u32::from(checksum) << 16;
        (words[1], words[2]) = match end {
            End::Source => (address.v4_raw(), load(old, 8)),
            End::Destination => (load(old, 4), address.v4_raw()),
        };
        if let Some(port) = port {
            words[3] = with_port(load(old, 12), end, port);
        }
        return store(ctx, start, &words, 12 + ports_size);
    }
    let [first, second] = address.words();
    (words[0], words[1]) = (first as u32, (first >> 32) as u32);
    (words[2], words[3]) = (second as u32, (second >> 32) as u32);
    match (end, port) {
        (End::Destination, Some(port)) => {
            let ports = header(ctx, plain_transport(false), 4).ok_or(Verdict::RewriteFailed)?;
            words[4] = with_port(load(ports, 0), end, port);
            store(ctx, field::V6_DESTINATION, &words, 16 + ports_size)
        }
        (End::Destination, None) => store(ctx, field::V6_DESTINATION, &words, 16),
        (End::Source, port) => {
            store(ctx, field::V6_SOURCE, &words, 16)?;
            match port {
                Some(port) => wire::store(ctx, plain_transport(false), &port.raw()),
                None => Ok(()),
            }
        }
    }
}

/// Both ports as they lie in memory, with one of them another.
#[inline(always)]
const fn with_port(ports: u32, end: End, port: Port) -> u32 {
    match end {
        End::Source => ports & 0xffff_0000 | port.raw() as u32,
        End::Destination => ports & 0xffff | (port.raw() as u32) << 16,
    }
}

/// Writes the first `size` bytes.
#[inline(always)]
fn store(ctx: &TcContext, offset: usize, words: &[u32; 5], size: usize) -> Result<(), Verdict> {
    // SAFETY: the context is the kernel's; the verifier refuses the program if `size` is more than there is.
    match unsafe { bpf_skb_store_bytes(ctx.skb.skb, offset as u32, words.as_ptr().cast(), size as u32, 0) } {
        0 => Ok(()),
        _ => Err(Verdict::RewriteFailed),
    }
}

/// Puts another port in the place of the packet's own, at one end.
#[inline(never)]
pub(crate) fn shift<const ODD: bool>(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    port: Port,
) -> Result<(), Verdict> {
    if ODD && matches!(packet.protocol, Protocol::Sctp) {
        return sctp::replace_port(ctx, packet, end, port);
    }
    let (old, at) = match end {
        End::Source => (packet.source_port, 0),
        End::Destination => (packet.destination_port, 2),
    };
    update_port_checksum(ctx, packet, old, port)?;
    wire::store(ctx, packet.transport as usize + at, &port.raw())
}

/// Has the transport's checksum follow the change of an address.
#[inline(always)]
fn update_checksum(ctx: &TcContext, packet: &Packet, difference: u32) -> Result<(), Verdict> {
    let flags = u64::from(BPF_F_PSEUDO_HDR) | zero_flag(packet);
    let result = if packet.v4 {
        replace_checksum(ctx, packet, 0, difference, flags)
    } else {
        match replace_checksum(ctx, packet, 0, difference, flags | BPF_F_IPV6) {
            Ok(()) => Ok(()),
            // A kernel that does not know the flag refuses it before it changes anything.
            Err(_) => replace_checksum(ctx, packet, 0, difference, flags),
        }
    };
    result
}

/// Has the transport's checksum follow the change of a port.
#[inline(always)]
fn update_port_checksum(ctx: &TcContext, packet: &Packet, old: Port, new: Port) -> Result<(), Verdict> {
    if old == new {
        return Ok(());
    }
    replace_checksum(ctx, packet, old.raw().into(), new.raw().into(), zero_flag(packet) | 2)
}

/// A UDP checksum of zero says that there is none.
#[inline(always)]
fn zero_flag(packet: &Packet) -> u64 {
    match packet.protocol {
        Protocol::Udp => u64::from(BPF_F_MARK_MANGLED_0),
        Protocol::Tcp | Protocol::Sctp => 0,
    }
}

#[inline(always)]
fn replace_checksum(ctx: &TcContext, packet: &Packet, from: u32, to: u32, flags: u64) -> Result<(), Verdict> {
    let offset = packet.transport + field::checksum(packet.protocol) as u32;
    // SAFETY: the context is the one the kernel gave us; the helper checks the offset itself.
    match unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset, from.into(), to.into(), flags) } {
        0 => Ok(()),
        _ => Err(Verdict::RewriteFailed),
    }
}
