//! The tuple that a flow has on the wire, where the VIP is gone: no two conversations may share one, or their answers
//! could not be told apart.

use crate::{
    flow,
    lookup::Choice,
    maps::{self, Tier},
    packet::{self, Packet},
    shape,
    tcx::{interface, key_of},
};
use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use core::ptr;
use mcs_proxy_ebpf::abi::{Port, Protocol, Verdict};

/// How often a new flow is offered a tuple before it is dropped.
const TRIES: u32 = 6;
/// How many of them may be by a backend of their own; the rest, and whenever a turn falls on the same backend again
/// (one endpoint, affinity, Maglev), by a source port.
const BACKENDS: u32 = 3;

/// Translated source ports lie above those that Linux gives out by itself (`ip_local_port_range`), so that a pod's own
/// connections hardly ever meet them.
const FIRST_PORT: u16 = 61_000;
const PORTS: u32 = u16::MAX as u32 - FIRST_PORT as u32 + 1;

/// `TCP_TIME_WAIT` and `TCP_LISTEN` (include/net/tcp_states.h).
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;

/// `struct bpf_sock_tuple` (include/uapi/linux/bpf.h): addresses, then ports. Of IPv4 the first three words.
const V4_SIZE: u32 = 12;
const V6_SIZE: u32 = 36;

/// Words of the control block, in which the packet carries from one try to the next how many there were and which
/// backend the last one was by.
const TRIED: usize = 0;
const LAST: usize = 1;

/// Before the first try: whatever else has used the words.
#[inline(always)]
pub(crate) fn begin(ctx: &TcContext) {
    set(ctx, TRIED, 0);
}

/// From which port the flow is to go on.
#[inline(always)]
pub(crate) fn wire_port(ctx: &TcContext, packet: &Packet, choice: &Choice) -> Port {
    let tried = get(ctx, TRIED);
    if tried == 0 || (tried < BACKENDS && get(ctx, LAST) != choice.backend_id) {
        return packet.source_port;
    }
    // SAFETY: the helper takes nothing and touches nothing of ours.
    let random = unsafe { bpf_get_prandom_u32() };
    Port::new(FIRST_PORT + (random % PORTS) as u16)
}

/// What a taken tuple leads to: another try, or the end.
#[inline(always)]
pub(crate) fn again(ctx: &TcContext, choice: &Choice) -> Verdict {
    let tried = get(ctx, TRIED) + 1;
    if tried >= TRIES {
        return Verdict::TupleTaken;
    }
    set(ctx, TRIED, tried);
    set(ctx, LAST, choice.backend_id);
    Verdict::OpenMissing
}

#[inline(always)]
fn get(ctx: &TcContext, word: usize) -> u32 {
    // SAFETY: within the control block; the verifier translates it to a load.
    unsafe { ptr::read_volatile(&raw const (*ctx.skb.skb).cb[word]) }
}

#[inline(always)]
fn set(ctx: &TcContext, word: usize, value: u32) {
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut (*ctx.skb.skb).cb[word], value) };
}

/// Whether the pod has a connection of its own, not by a VIP, that is on the wire what this flow would be.
///
/// One in TIME_WAIT does not count: the pod itself would reuse its port.
#[inline(never)]
pub(crate) fn is_taken_by_the_pod(
    ctx: &TcContext,
    packet: &Packet,
    choice: &Choice,
    wire_port: Port,
    netns: i32,
) -> bool {
    // A negative id would mean the host's namespace.
    if !matches!(packet.protocol, Protocol::Tcp) || netns < 0 {
        return false;
    }
    let ports = u32::from(choice.port.raw()) | u32::from(wire_port.raw()) << 16;
    // As in a packet that answers.
    let (mut tuple, size) = if packet.v4 {
        ([choice.address.v4_raw(), packet.source.v4_raw(), ports, 0, 0, 0, 0, 0, 0], V4_SIZE)
    } else {
        let half = |word: u64| [word as u32, (word >> 32) as u32];
        let ([from, from_end], [to, to_end]) = (choice.address.words(), packet.source.words());
        let ([a, b], [c, d], [e, f], [g, h]) = (half(from), half(from_end), half(to), half(to_end));
        ([a, b, c, d, e, f, g, h, ports], V6_SIZE)
    };
    // SAFETY: the pointers are valid, the size is within the tuple; what the helper returns is null or a socket that
    // is held until it is released.
    unsafe {
        let socket = bpf_skc_lookup_tcp(ctx.skb.skb.cast(), (&raw mut tuple).cast(), size, netns as u64, 0);
        if socket.is_null() {
            return false;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != LISTEN && state != TIME_WAIT
    }
}

/// A packet from a pod straight to a backend. If it opens a connection that is on the wire what a flow of the same
/// pod is, that flow gives way if it is over; else the packet must.
///
/// Of datagrams it is whoever was called last that answers: a socket may call the VIP first, and then the backend that
/// it has heard of there. The flow gives way, open or not; if the VIP is called again, it begins anew.
#[inline(never)]
pub(crate) fn check_direct(ctx: &TcContext) -> Verdict {
    let Ok(network) = packet::network(ctx) else { return Verdict::NotOurs };
    let Ok(shape) = shape::find(ctx, &network) else { return Verdict::NotOurs };
    let Ok(packet) = packet::anywhere(ctx, network, shape) else { return Verdict::NotOurs };
    if !packet.may_open() {
        return Verdict::NotOurs;
    }
    let interface = interface(ctx);
    let is_datagram = matches!(packet.protocol, Protocol::Udp);
    // To the backend, it is what the wire tuple of a flow would be.
    let wire = key_of(&packet);
    for tier in [Tier::Established, Tier::Transient] {
        if let Some(reply) = maps::reply(tier, &wire)
            && !flow::give_way(tier, &wire, reply, interface, is_datagram)
        {
            if let Some(aside) = maps::aside() {
                aside.key = wire;
            }
            return Verdict::DirectTaken;
        }
    }
    Verdict::NotOurs
}
