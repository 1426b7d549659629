//! SCTP (RFC 9260): ports as in TCP, chunks in place of flags, and a CRC32c without a pseudo header.

use crate::{
    aside::{self, words},
    packet::{Packet, Start},
    rewrite::End,
    shape::Shape,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::bpf_skb_store_bytes,
    programs::TcContext,
};
use mcs_proxy_ebpf::{
    abi::{Port, Verdict},
    crc32c,
    transition::{SCTP_INIT, flags_of_chunk},
};

/// The common header and the header of the first chunk; without a chunk it is no packet.
const HEADER: u32 = 16;
const CHECKSUM: u32 = 8;
/// With the initiate tag, the first field of an INIT.
const INIT_HEADER: u32 = 20;

#[inline(always)]
pub(crate) fn start(ctx: &TcContext, shape: Shape, length: u32) -> Result<Start, Verdict> {
    // The checksum covers the whole packet, and its change depends on the length, which a first fragment does not
    // tell. SCTP cuts its messages itself.
    if shape.is_first() {
        return Err(Verdict::Unsupported);
    }
    if length < HEADER {
        return Err(Verdict::Malformed);
    }
    let offset = shape.transport() as u32;
    let header = words(ctx.skb.skb, offset, HEADER).ok_or(Verdict::Malformed)?;
    let (ports, tag, chunk) = (header[0], header[1], header[3] as u8);
    let mut sequence = 0;
    if chunk == SCTP_INIT {
        // An INIT is for whoever has no tag yet (8.5.1).
        if length < INIT_HEADER || tag != 0 {
            return Err(Verdict::Malformed);
        }
        sequence = words(ctx.skb.skb, offset + HEADER, 4).ok_or(Verdict::Malformed)?[0];
    }
    Ok(Start { ports, sequence, flags: flags_of_chunk(chunk), size: 0 })
}

/// Puts a port in the place of the packet's own. The addresses are not in the checksum.
#[inline(always)]
pub(crate) fn replace_port(ctx: &TcContext, packet: &Packet, end: End, port: Port) -> Result<(), Verdict> {
    let (offset, change) = match end {
        End::Source => (0, u32::from(packet.source_port.raw() ^ port.raw())),
        End::Destination => (2, u32::from(packet.destination_port.raw() ^ port.raw()) << 16),
    };
    if change == 0 {
        return Ok(());
    }
    let transport = packet.transport;
    let skb = ctx.skb.skb;
    let [old, ..] = *words(skb, transport + CHECKSUM, 4).ok_or(Verdict::RewriteFailed)?;
    let stored = store(skb, transport + offset, port.raw())
        // Zero: the interface that sends it will compute it (`CHECKSUM_PARTIAL`).
        && (old == 0 || store(skb, transport + CHECKSUM, old ^ difference(change, aside::length())));
    if stored { Ok(()) } else { Err(Verdict::RewriteFailed) }
}

/// A function of its own, so that the verifier meets its loop with scalars only.
#[inline(never)]
fn difference(change: u32, length: u32) -> u32 {
    crc32c::difference(change, length)
}

#[inline(always)]
fn store<T>(skb: *mut __sk_buff, offset: u32, value: T) -> bool {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the context is the one the kernel gave us; the helper checks the offset itself.
    unsafe {
        bpf_skb_store_bytes(skb.cast(), offset, (&raw const value).cast(), size_of::<T>() as u32, flags) == 0
    }
}
