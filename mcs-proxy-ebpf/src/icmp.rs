//! ICMP, of both versions: errors about translated packets are translated in their turn, and an echo request to a VIP
//! is answered, because nobody else would.
//!
//! An error quotes the packet it is about. To the pod it quotes what we sent, client → backend, and must say client →
//! VIP, or the pod's kernel finds no socket for it. From the pod it quotes what we delivered, VIP → client, and must
//! say backend → client. Redirects are passed as they are: with a VIP inside, the pod would pin it to one backend.

use crate::{
    maps::{self, Tier},
    tcx::interface,
    wire::{
        ETHERNET, IPV6, destination_offset, load, load_address, source_offset, store, store_address,
        turn_around, update_checksum, update_ip_checksum,
    },
};
use aya_ebpf::programs::TcContext;
use mcs_proxy_ebpf::{
    abi::{Address, Direction, Port, Protocol, Tuple, Verdict},
    checksum,
};

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// Type, code, checksum, and four bytes that depend on the type.
const HEADER: usize = 8;

/// Where an ICMP message is.
struct Message {
    v4: bool,
    /// Its first byte and the one behind its last.
    start: usize,
    end: usize,
    kind: u8,
}

/// The packet that an error is about.
struct Quote {
    ip: usize,
    transport: usize,
    source: Address,
    destination: Address,
    source_port: Port,
    destination_port: Port,
    protocol: u8,
}

/// ICMP from a pod to an address that may be a VIP.
#[inline(never)]
pub(crate) fn from_pod(ctx: &TcContext) -> Verdict {
    about_replies(ctx).unwrap_or_else(|verdict| verdict)
}

/// ICMP to a pod, from anywhere.
#[inline(never)]
pub(crate) fn to_pod(ctx: &TcContext) -> Verdict {
    about_requests(ctx).unwrap_or_else(|verdict| verdict)
}

#[inline(always)]
fn about_replies(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let message = message(ctx)?;
    if message.is_echo_request() {
        return echo(ctx, &message);
    }
    if !message.is_error() {
        return Err(Verdict::Unsupported);
    }
    let quote = quote(ctx, &message)?;
    let vip = load_address(ctx, message.v4, ETHERNET + destination_offset(message.v4))?;
    if vip != quote.source {
        return Err(Verdict::NoFlow);
    }
    let key = Tuple::new(quote.destination, quote.destination_port, vip, quote.source_port, quote.protocol);
    let mut flow = maps::flow(Tier::Established, &key);
    if flow.is_none() {
        flow = maps::flow(Tier::Transient, &key);
    }
    let Some(pointer) = flow else { return Err(Verdict::NoFlow) };
    // SAFETY: as in `flow::follow`.
    let flow = unsafe { &*pointer };
    let (backend, port, owner) = (flow.backend, flow.backend_port, flow.interface);
    let wire_port = flow.wire_port;
    if flow.vip != vip || flow.client_port != quote.destination_port || owner != interface(ctx) {
        return Err(Verdict::NoFlow);
    }
    let outer = destination_offset(message.v4);
    let to = (&backend, port, wire_port);
    translate(ctx, &message, &quote, source_offset(message.v4), outer, to)
}

#[inline(always)]
fn about_requests(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let message = message(ctx)?;
    if !message.is_error() {
        return Err(Verdict::NotOurs);
    }
    let quote = quote(ctx, &message)?;
    if !maps::is_hot(Direction::ToPod, &quote.destination) {
        return Err(Verdict::NotOurs);
    }
    if load_address(ctx, message.v4, ETHERNET + destination_offset(message.v4))? != quote.source {
        return Err(Verdict::NoFlow);
    }
    let backend = quote.destination;
    let key = Tuple::new(quote.source, quote.source_port, backend, quote.destination_port, quote.protocol);
    let mut reply = maps::reply(Tier::Established, &key);
    if reply.is_none() {
        reply = maps::reply(Tier::Transient, &key);
    }
    let Some(pointer) = reply else { return Err(Verdict::NoFlow) };
    // SAFETY: as in `reply::follow`.
    let reply = unsafe { &*pointer };
    let (vip, port, owner) = (reply.vip, reply.vip_port, reply.interface);
    let client_port = reply.client_port;
    if reply.backend != backend || reply.wire_port != quote.source_port {
        return Err(Verdict::NoFlow);
    }
    if owner != interface(ctx) {
        return Err(Verdict::OtherInterface);
    }
    // A router speaks for itself; the backend speaks for the VIP.
    let from = load_address(ctx, message.v4, ETHERNET + source_offset(message.v4))?;
    let outer = if from == backend { source_offset(message.v4) } else { 0 };
    let to = (&vip, port, client_port);
    translate(ctx, &message, &quote, destination_offset(message.v4), outer, to)
}

/// Puts an address and port in place of the quote's: its source's or destination's, by `inner`; and another port, the
/// third, at its other end, which is the client's. The same address goes to `outer` in the IP header, unless that is 0.
#[inline(always)]
fn translate(
    ctx: &TcContext,
    message: &Message,
    quote: &Quote,
    inner: usize,
    outer: usize,
    (address, port, client_port): (&Address, Port, Port),
) -> Result<Verdict, Verdict> {
    let is_source = inner == source_offset(message.v4);
    let (old, old_ports, ports) = if is_source {
        (&quote.source, [quote.source_port, quote.destination_port], [port, client_port])
    } else {
        (&quote.destination, [quote.source_port, quote.destination_port], [client_port, port])
    };
    if address.is_v4() != message.v4 {
        return Err(Verdict::Corrupt);
    }
    let addresses = checksum::difference(old, address);
    let difference = |end: usize| checksum::word_difference(old_ports[end].raw(), ports[end].raw());
    let transport = checksum::sum(addresses, checksum::sum(difference(0), difference(1)));

    // What the message as a whole gains: it is covered by a checksum of its own.
    let mut gain = transport;
    let checksum_at = match Protocol::from_number(quote.protocol) {
        Some(Protocol::Tcp) => quote.transport + 16,
        Some(Protocol::Udp) => quote.transport + 6,
        // Of SCTP's CRC nobody expects that it fits a quote.
        Some(Protocol::Sctp) | None => 0,
    };
    if checksum_at != 0 && checksum_at + 2 <= message.end {
        let before: u16 = load(ctx, checksum_at)?;
        let is_udp = quote.protocol == Protocol::Udp.number();
        if before != 0 || !is_udp {
            let mut after = checksum::update(before, transport);
            if after == 0 && is_udp {
                after = 0xffff;
            }
            gain = checksum::sum(gain, checksum::word_difference(before, after));
            store(ctx, checksum_at, &after)?;
        }
    }
    store(ctx, quote.transport, &ports.map(Port::raw))?;
    store_address(ctx, quote.ip + inner, address)?;
    if message.v4 {
        // The quoted header's checksum makes up for the address in it.
        update_ip_checksum(ctx, quote.ip, addresses)?;
        gain = checksum::sum(gain, checksum::difference(address, old));
    }
    if outer != 0 {
        store_address(ctx, ETHERNET + outer, address)?;
        if message.v4 {
            update_ip_checksum(ctx, ETHERNET, addresses)?;
        } else {
            gain = checksum::sum(gain, addresses);
        }
    }
    update_checksum(ctx, message.start + 2, gain)?;
    Ok(Verdict::IcmpTranslated)
}

/// Answers an echo request as the VIP would if it were a machine.
#[inline(always)]
fn echo(ctx: &TcContext, message: &Message) -> Result<Verdict, Verdict> {
    let (from, to) = (ETHERNET + source_offset(message.v4), ETHERNET + destination_offset(message.v4));
    let vip = load_address(ctx, message.v4, to)?;
    if !maps::is_vip(&vip) {
        return Err(Verdict::NoService);
    }
    let client = load_address(ctx, message.v4, from)?;
    turn_around(ctx)?;
    // Addresses that change places change no sum.
    store_address(ctx, from, &vip)?;
    store_address(ctx, to, &client)?;
    let kind: u8 = if message.v4 { 0 } else { 129 };
    store(ctx, message.start, &kind)?;
    let gain = checksum::word_difference(u16::from(message.kind), u16::from(kind));
    update_checksum(ctx, message.start + 2, gain)?;
    Ok(Verdict::EchoReplied)
}

/// Finds the message behind an IP header without extensions; a fragment has none.
#[inline(always)]
fn message(ctx: &TcContext) -> Result<Message, Verdict> {
    let v4 = u16::from_be(load(ctx, 12)?) == 0x0800;
    let (start, end) = if v4 {
        let fragment = u16::from_be(load(ctx, ETHERNET + 6)?) & 0x3fff;
        let protocol: u8 = load(ctx, ETHERNET + 9)?;
        if fragment != 0 || protocol != ICMP {
            return Err(Verdict::Unsupported);
        }
        let length = u16::from_be(load(ctx, ETHERNET + 2)?);
        (ETHERNET + v4_header(ctx, ETHERNET)?, ETHERNET + usize::from(length))
    } else {
        if load::<u8>(ctx, ETHERNET + 6)? != ICMP_V6 {
            return Err(Verdict::Unsupported);
        }
        v6_version(ctx, ETHERNET)?;
        let length = u16::from_be(load(ctx, ETHERNET + 4)?);
        (ETHERNET + IPV6, ETHERNET + IPV6 + usize::from(length))
    };
    if start + HEADER > end || end > ctx.len() as usize {
        return Err(Verdict::Malformed);
    }
    Ok(Message { v4, start, end, kind: load(ctx, start)? })
}

/// Reads what an error quotes: at least the ports, or nothing can be done with it.
#[inline(always)]
fn quote(ctx: &TcContext, message: &Message) -> Result<Quote, Verdict> {
    let ip = message.start + HEADER;
    let (transport, protocol): (usize, u8) = if message.v4 {
        // Only the first fragment has ports.
        if u16::from_be(load(ctx, ip + 6)?) & 0x1fff != 0 {
            return Err(Verdict::Unsupported);
        }
        (ip + v4_header(ctx, ip)?, load(ctx, ip + 9)?)
    } else {
        v6_version(ctx, ip)?;
        (ip + IPV6, load(ctx, ip + 6)?)
    };
    if Protocol::from_number(protocol).is_none() || transport + 8 > message.end {
        return Err(Verdict::Unsupported);
    }
    let source = load_address(ctx, message.v4, ip + source_offset(message.v4))?;
    let destination = load_address(ctx, message.v4, ip + destination_offset(message.v4))?;
    let ports: u32 = load(ctx, transport)?;
    Ok(Quote {
        ip,
        transport,
        source,
        destination,
        source_port: Port::from_raw(ports as u16),
        destination_port: Port::from_raw((ports >> 16) as u16),
        protocol,
    })
}

/// How long an IPv4 header is.
#[inline(always)]
fn v4_header(ctx: &TcContext, at: usize) -> Result<usize, Verdict> {
    let first: u8 = load(ctx, at)?;
    if !(0x45..=0x4f).contains(&first) {
        return Err(Verdict::Malformed);
    }
    Ok(usize::from(first & 15) * 4)
}

/// Fails unless it is an IPv6 header that is there.
#[inline(always)]
fn v6_version(ctx: &TcContext, at: usize) -> Result<(), Verdict> {
    if load::<u8>(ctx, at)? >> 4 == 6 { Ok(()) } else { Err(Verdict::Malformed) }
}

impl Message {
    #[inline(always)]
    fn is_echo_request(&self) -> bool {
        self.kind == if self.v4 { 8 } else { 128 }
    }

    /// Unreachable, fragmentation needed or too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(&self) -> bool {
        if self.v4 { matches!(self.kind, 3 | 11 | 12) } else { matches!(self.kind, 1..=4) }
    }
}
