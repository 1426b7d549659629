//! What a pod is told when it calls a frontend of ours that has no backend: TCP is refused, the rest is unreachable. And
//! when its connection was ended: TCP is reset.
//!
//! The answer is built in the socket buffer of what it answers, leaves by the interface that came in by, whatever
//! source it names, and is never larger. Hence an ICMP error quotes the IP header and eight bytes, which is what a
//! kernel needs to find the socket, and a datagram too small to make room for that is passed on instead.

use crate::{
    flow::ticks,
    maps,
    tcx::interface,
    wire::{ETHERNET, IPV4, IPV6, destination_offset, load, load_address, source_offset, store, turn_around},
};
use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::generated::{bpf_csum_diff, bpf_skb_change_tail},
    programs::TcContext,
};
use core::ptr;
use mcs_proxy_ebpf::{
    abi::{Address, Protocol, Verdict},
    checksum,
    transition::{TCP_ACK, TCP_RST},
};

const TCP: usize = 20;
const ICMP: usize = 8;
/// Ports and what else a quote has of the transport header.
const QUOTED: usize = 8;
const HOPS: u8 = 64;

/// More than what stands before any transport header here.
const PULLED: usize = 64;

/// A packet that nobody takes.
struct Request {
    v4: bool,
    source: Address,
    destination: Address,
    protocol: Protocol,
    transport: usize,
    /// From the transport header on.
    bytes: usize,
}

/// Turns the packet into the answer to it.
#[inline(never)]
pub(crate) fn answer(ctx: &TcContext) -> Verdict {
    refuse(ctx).unwrap_or_else(|verdict| verdict)
}

#[inline(always)]
fn refuse(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let request = request(ctx)?;
    if request.protocol == Protocol::Tcp {
        reset(ctx, &request)?;
    } else if request.v4 {
        // 28 bytes: the IP header and eight more.
        unreachable::<{ (IPV4 + QUOTED) / 4 }>(ctx, &request, [3, 3])?;
    } else {
        unreachable::<{ (IPV6 + QUOTED) / 4 }>(ctx, &request, [1, 4])?;
    }
    Ok(Verdict::Rejected)
}

/// Reads a plain packet; what has options or extensions is passed.
#[inline(always)]
fn request(ctx: &TcContext) -> Result<Request, Verdict> {
    let v4 = u16::from_be(load(ctx, 12)?) == 0x0800;
    let (protocol, transport, end) = if v4 {
        let fragment = u16::from_be(load(ctx, ETHERNET + 6)?) & 0x3fff;
        if load::<u8>(ctx, ETHERNET)? != 0x45 || fragment != 0 {
            return Err(Verdict::NoBackend);
        }
        let length = u16::from_be(load(ctx, ETHERNET + 2)?);
        (load::<u8>(ctx, ETHERNET + 9)?, ETHERNET + IPV4, ETHERNET + usize::from(length))
    } else {
        let length = u16::from_be(load(ctx, ETHERNET + 4)?);
        (load::<u8>(ctx, ETHERNET + 6)?, ETHERNET + IPV6, ETHERNET + IPV6 + usize::from(length))
    };
    if end < transport || end > ctx.len() as usize {
        return Err(Verdict::NoBackend);
    }
    let Some(protocol) = Protocol::from_number(protocol) else { return Err(Verdict::NoBackend) };
    Ok(Request {
        v4,
        source: load_address(ctx, v4, ETHERNET + source_offset(v4))?,
        destination: load_address(ctx, v4, ETHERNET + destination_offset(v4))?,
        protocol,
        transport,
        bytes: end - transport,
    })
}

/// RFC 9293, section 3.10.7.1: to a segment without an ACK, sequence number 0 and an ACK of all that it occupies; to
/// another, the sequence number that it acknowledges.
#[inline(always)]
fn reset(ctx: &TcContext, request: &Request) -> Result<(), Verdict> {
    let at = request.transport;
    let ports: [u16; 2] = load(ctx, at)?;
    let sequence = u32::from_be(load(ctx, at + 4)?);
    let header = usize::from(load::<u8>(ctx, at + 12)? >> 4) * 4;
    if header < TCP || header > request.bytes {
        return Err(Verdict::NoBackend);
    }
    let occupied = 1 + (request.bytes - header) as u32;
    let acknowledges = load::<u8>(ctx, at + 13)? & TCP_ACK != 0;
    let expected: u32 = load(ctx, at + 8)?;
    let (number, acknowledged) =
        if acknowledges { (expected, 0) } else { (0, sequence.wrapping_add(occupied).to_be()) };
    let flags = if acknowledges { TCP_RST } else { TCP_RST | TCP_ACK };
    let mut tcp: [u32; TCP / 4] = [
        u32::from(ports[1]) | (u32::from(ports[0]) << 16),
        number,
        acknowledged,
        u32::from_ne_bytes([(TCP as u8 / 4) << 4, flags, 0, 0]),
        0,
    ];
    let checksum = complement(&tcp, pseudo(request, Protocol::Tcp.number(), TCP));
    tcp[4] = u32::from(checksum);
    reshape(ctx, request, TCP, TCP)?;
    network(ctx, request, Protocol::Tcp.number(), TCP)?;
    store(ctx, at, &tcp)
}

/// Port unreachable, by type and code; `WORDS` are quoted.
#[inline(always)]
fn unreachable<const WORDS: usize>(ctx: &TcContext, request: &Request, kind: [u8; 2]) -> Result<(), Verdict> {
    let size = ICMP + WORDS * 4;
    let header = if request.protocol == Protocol::Sctp { 12 } else { 8 };
    if request.bytes < size || request.bytes < header {
        return Err(Verdict::NoBackend);
    }
    let quote: [u32; WORDS] = load(ctx, ETHERNET)?;
    let protocol = if request.v4 { 1 } else { 58 };
    // Only version 6 has the addresses in its checksum.
    let seed = if request.v4 { 0 } else { pseudo(request, protocol, size) };
    let seed = checksum::sum(seed, u32::from(u16::from_ne_bytes(kind)));
    let checksum = complement(&quote, seed);
    reshape(ctx, request, header, size)?;
    network(ctx, request, protocol, size)?;
    let head = [u32::from(u16::from_ne_bytes(kind)) | (u32::from(checksum) << 16), 0];
    store(ctx, request.transport, &head)?;
    store(ctx, request.transport + ICMP, &quote)
}

/// Makes the packet one of `size` bytes behind the IP header, without a checksum that someone else is to finish or
/// has seen. `header` is the transport's.
///
/// What a pod sends has, as a rule, a checksum that the last device is to complete (`CHECKSUM_PARTIAL`), at a place
/// that means something else in the answer. The kernel gives that up when the place is pulled off, and nowhere else.
#[inline(always)]
fn reshape(ctx: &TcContext, request: &Request, header: usize, size: usize) -> Result<(), Verdict> {
    let keep = (request.transport + header) as u32;
    if ctx.pull_data(keep).is_err() {
        return Err(Verdict::NoBackend);
    }
    if !maps::take_reject(interface(ctx), ticks()) {
        return Err(Verdict::RejectLimited);
    }
    // Cut first: only what is linear, and no segments, can be made longer.
    change_tail(ctx, keep)?;
    change_tail(ctx, (request.transport + size + PULLED) as u32)?;
    ctx.adjust_room(-(PULLED as i32), BPF_ADJ_ROOM_MAC, 0).map_err(|_| Verdict::RewriteFailed)?;
    turn_around(ctx)
}

#[inline(always)]
fn change_tail(ctx: &TcContext, length: u32) -> Result<(), Verdict> {
    // SAFETY: the context is the kernel's; the helper checks the length.
    match unsafe { bpf_skb_change_tail(ctx.skb.skb, length, 0) } {
        0 => Ok(()),
        _ => Err(Verdict::RewriteFailed),
    }
}

/// The IP header, from whom the packet was for to whom it came from.
#[inline(always)]
fn network(ctx: &TcContext, request: &Request, protocol: u8, size: usize) -> Result<(), Verdict> {
    let (from, to) = (&request.destination, &request.source);
    if request.v4 {
        let length = ((IPV4 + size) as u16).to_be_bytes();
        let mut ip: [u32; IPV4 / 4] = [
            u32::from_ne_bytes([0x45, 0, length[0], length[1]]),
            // Not to be fragmented.
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([HOPS, protocol, 0, 0]),
            from.v4_raw(),
            to.v4_raw(),
        ];
        ip[2] |= u32::from(complement(&ip, 0)) << 16;
        store(ctx, ETHERNET, &ip)
    } else {
        let length = (size as u16).to_be_bytes();
        let head =
            [u32::from_ne_bytes([0x60, 0, 0, 0]), u32::from_ne_bytes([length[0], length[1], protocol, HOPS])];
        store(ctx, ETHERNET, &head)?;
        store(ctx, ETHERNET + source_offset(false), &from.words())?;
        store(ctx, ETHERNET + destination_offset(false), &to.words())
    }
}

/// The sum of the pseudo header of a packet between the two addresses.
#[inline(always)]
fn pseudo(request: &Request, protocol: u8, size: usize) -> u32 {
    let addresses = checksum::sum(
        checksum::difference(&Address::UNSPECIFIED, &request.source),
        checksum::difference(&Address::UNSPECIFIED, &request.destination),
    );
    let rest = u32::from((size as u16).to_be()) + u32::from(u16::from(protocol).to_be());
    checksum::sum(addresses, rest)
}

/// The checksum over the words and what was summed before.
#[inline(always)]
fn complement<const WORDS: usize>(words: &[u32; WORDS], seed: u32) -> u16 {
    // SAFETY: the helper reads the words and nothing else.
    let sum =
        unsafe { bpf_csum_diff(ptr::null_mut(), 0, words.as_ptr().cast_mut(), (WORDS * 4) as u32, seed) };
    checksum::complement(sum as u32)
}
