//! Changing one end of a packet, checksums included.

use crate::{
    packet::{Packet, field, header, load, plain_transport, store},
    sctp, wire,
};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_update, bpf_l4_csum_replace},
    programs::TcContext,
};
use mcs_proxy_ebpf::{
    abi::{Address, Port, Protocol, Verdict},
    checksum,
};

/// Since Linux 6.16 (commit ead7f9b8de65), and not in aya's bindings yet: an address of IPv6 has no header checksum
/// that would cancel its change, so `skb->csum` of a `CHECKSUM_COMPLETE` packet must be left as it is.
const BPF_F_IPV6: u64 = 1 << 7;

/// Both ports together.
const PORTS: usize = 4;

/// Which end of the packet is changed.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Puts an address and port in the place of the packet's own. `ODD`: wherever its transport header is, SCTP's too.
///
/// The helpers come first and the pointers after them: they invalidate pointers. They also know about offloads:
/// under `CHECKSUM_PARTIAL` only the pseudo header is in the checksum, so ports must not be counted, and a UDP
/// checksum of zero (none) stays zero while one that becomes zero is written as `0xffff` (RFC 768).
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
        sctp::replace_port(ctx, packet, end, port)?;
    } else {
        update_checksum(ctx, packet, difference, old_port, port)?;
        if ODD {
            let at = match end {
                End::Source => packet.transport as usize,
                End::Destination => packet.transport as usize + 2,
            };
            wire::store(ctx, at, &port.raw())?;
        }
    }
    // By constants, in either branch: the verifier does not know that what was checked for a family is written for it.
    match (packet.v4, ODD) {
        (true, false) => write::<true, true>(ctx, end, address, difference, port),
        (false, false) => write::<false, true>(ctx, end, address, difference, port),
        (true, true) => write::<true, false>(ctx, end, address, difference, port),
        (false, true) => write::<false, false>(ctx, end, address, difference, port),
    }
}

/// Puts an address in the place of the packet's own, of which nothing else is known: a later fragment.
#[inline(always)]
pub(crate) fn rewrite_address(
    ctx: &TcContext,
    v4: bool,
    end: End,
    old: &Address,
    address: &Address,
) -> Result<(), Verdict> {
    if address.is_v4() != v4 {
        return Err(Verdict::Corrupt);
    }
    let difference = checksum::difference(old, address);
    compensate(ctx, v4, difference);
    let no_port = Port::from_raw(0);
    if v4 {
        write::<true, false>(ctx, end, address, difference, no_port)
    } else {
        write::<false, false>(ctx, end, address, difference, no_port)
    }
}

/// Where no checksum in the packet cancels the change of an address, `skb->csum` follows it.
#[inline(always)]
fn compensate(ctx: &TcContext, v4: bool, difference: u32) {
    if !v4 {
        // SAFETY: the context is the one the kernel gave us. An error says that there is no such sum.
        let _none = unsafe { bpf_csum_update(ctx.skb.skb, difference) };
    }
}

/// Writes the address and the checksum of the IPv4 header, and with `PORT` the port, right behind the header.
#[inline(always)]
fn write<const V4: bool, const PORT: bool>(
    ctx: &TcContext,
    end: End,
    address: &Address,
    difference: u32,
    port: Port,
) -> Result<(), Verdict> {
    // One check for everything that is written.
    let start =
        header(ctx, 0, plain_transport(V4) + if PORT { PORTS } else { 0 }).ok_or(Verdict::RewriteFailed)?;
    let (at, port_at) = match (end, V4) {
        (End::Source, true) => (field::V4_SOURCE, 0),
        (End::Destination, true) => (field::V4_DESTINATION, 2),
        (End::Source, false) => (field::V6_SOURCE, 0),
        (End::Destination, false) => (field::V6_DESTINATION, 2),
    };
    if V4 {
        store(start, at, address.v4_raw());
        let ip_checksum = checksum::update(load(start, field::V4_CHECKSUM), difference);
        store(start, field::V4_CHECKSUM, ip_checksum);
    } else {
        let [first, second] = address.words();
        store(start, at, first);
        store(start, at + 8, second);
    }
    if PORT {
        store(start, plain_transport(V4) + port_at, port.raw());
    }
    Ok(())
}

#[inline(always)]
fn update_checksum(
    ctx: &TcContext,
    packet: &Packet,
    difference: u32,
    old_port: Port,
    port: Port,
) -> Result<(), Verdict> {
    let offset = packet.transport + field::checksum(packet.protocol) as u32;
    let zero = match packet.protocol {
        Protocol::Udp => u64::from(BPF_F_MARK_MANGLED_0),
        Protocol::Tcp | Protocol::Sctp => 0,
    };
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | zero;
    // SAFETY (all three): the context is the one the kernel gave us; the helper checks the offset itself.
    let replace =
        |from: u64, to: u64, flags: u64| unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset, from, to, flags) };
    let changed = if packet.v4 {
        replace(0, u64::from(difference), pseudo)
    } else {
        match replace(0, u64::from(difference), pseudo | BPF_F_IPV6) {
            0 => 0,
            // A kernel that does not know the flag refuses it before it changes anything.
            _ => replace(0, u64::from(difference), pseudo),
        }
    };
    if changed != 0 {
        return Err(Verdict::RewriteFailed);
    }
    if old_port != port && replace(u64::from(old_port.raw()), u64::from(port.raw()), zero | 2) != 0 {
        return Err(Verdict::RewriteFailed);
    }
    Ok(())
}

/// Puts another port in the place of the packet's own, at one end.
#[inline(never)]
pub(crate) fn shift<const ODD: bool>(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    port: Port,
) -> Result<(), Verdict> {
    let address = match end {
        End::Source => &packet.source,
        End::Destination => &packet.destination,
    };
    rewrite::<ODD>(ctx, packet, end, address, port)
}
