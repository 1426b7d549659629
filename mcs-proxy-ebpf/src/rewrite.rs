//! Changing one end of a packet, checksums included.

use crate::packet::{Packet, field, header, load, store};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::bpf_l4_csum_replace,
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

/// Puts an address and port in the place of the packet's own.
///
/// The helpers come first and the pointers after them: they invalidate pointers. They also know about offloads:
/// under `CHECKSUM_PARTIAL` only the pseudo header is in the checksum, so ports must not be counted, and a UDP
/// checksum of zero (none) stays zero while one that becomes zero is written as `0xffff` (RFC 768).
#[inline(always)]
pub(crate) fn rewrite(
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
    if address.is_v4() != packet.is_v4() {
        return Err(Verdict::Corrupt);
    }
    let difference = checksum::difference(old_address, address);
    update_checksum(ctx, packet, difference, old_port, port)?;

    // One check for everything that is written: both headers up to the ports.
    let start = header(ctx, 0, packet.transport + 4).ok_or(Verdict::RewriteFailed)?;
    if packet.is_v4() {
        let offset = match end {
            End::Source => field::V4_SOURCE,
            End::Destination => field::V4_DESTINATION,
        };
        store(start, offset, address.v4_raw());
        let ip_checksum = checksum::update(load(start, field::V4_CHECKSUM), difference);
        store(start, field::V4_CHECKSUM, ip_checksum);
    } else {
        let offset = match end {
            End::Source => field::V6_SOURCE,
            End::Destination => field::V6_DESTINATION,
        };
        let [first, second] = address.words();
        store(start, offset, first);
        store(start, offset + 8, second);
    }
    let offset = match end {
        End::Source => packet.transport,
        End::Destination => packet.transport + 2,
    };
    store(start, offset, port.raw());
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
    let offset = (packet.transport + field::checksum(packet.protocol)) as u32;
    let zero = match packet.protocol {
        Protocol::Udp => u64::from(BPF_F_MARK_MANGLED_0),
        Protocol::Tcp | Protocol::Sctp => 0,
    };
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | zero;
    // SAFETY (all three): the context is the one the kernel gave us; the helper checks the offset itself.
    let replace =
        |from: u64, to: u64, flags: u64| unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset, from, to, flags) };
    let changed = if packet.is_v4() {
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
pub(crate) fn shift(ctx: &TcContext, packet: &Packet, end: End, port: Port) -> Result<(), Verdict> {
    let address = match end {
        End::Source => &packet.source,
        End::Destination => &packet.destination,
    };
    rewrite(ctx, packet, end, address, port)
}
