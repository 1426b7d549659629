//! The memory of flows on the way from the pod: a pair of entries each, inserted together or not at all.
//!
//! A flow begins in the transient pair, whose oldest entries give way to new ones. What the client confirms is
//! promoted (see [`life`](crate::life)) to the established pair, from which nothing but its end takes it.

use crate::{
    events, life,
    lookup::Choice,
    maps::{self, Insert, Tier},
    packet::Packet,
};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use core::intrinsics::{AtomicOrdering, atomic_or};
use mcs_proxy_ebpf::{
    abi::{Address, Flow, FlowState, Port, Protocol, Reply, TICK_SHIFT, Tuple, Verdict},
    transition,
};

/// Now, in ticks.
#[inline(always)]
pub(crate) fn ticks() -> u32 {
    // SAFETY: the helper takes nothing; the JIT makes a load of it.
    (unsafe { bpf_jiffies64() } >> TICK_SHIFT) as u32
}

/// What a lookup of a packet from a pod finds. A plain struct, not an enum with fields: an absent field would be
/// undefined, the compiler spills undefined registers, and the verifier refuses that.
pub(crate) struct Known {
    pub(crate) status: Status,
    pub(crate) address: Address,
    pub(crate) port: Port,
    pub(crate) service: u32,
    pub(crate) backend_id: u32,
    /// What is out of the ordinary about it.
    pub(crate) state: FlowState,
    /// From which port its packets go on.
    pub(crate) wire_port: Port,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// No flow: the other fields are zero.
    Unknown,
    /// A flow that goes on: the packet goes where it says.
    Current,
    /// A flow whose tuple a new one takes over, if it may.
    Outdated,
}

const UNKNOWN: Known = Known {
    status: Status::Unknown,
    address: Address::UNSPECIFIED,
    port: Port::from_raw(0),
    service: 0,
    backend_id: 0,
    state: FlowState::NEW,
    wire_port: Port::from_raw(0),
};

/// Looks the packet's flow up and notes what it says about the flow.
#[inline(always)]
pub(crate) fn find(key: &Tuple, packet: &Packet, interface: u32) -> Known {
    if let Some(pointer) = maps::flow(Tier::Established, key) {
        return follow(Tier::Established, key, pointer, packet, interface);
    }
    // A promotion inserts above and leaves what is here, so that no packet falls in between.
    match maps::flow(Tier::Transient, key) {
        Some(pointer) => follow(Tier::Transient, key, pointer, packet, interface),
        None => UNKNOWN,
    }
}

#[inline(always)]
fn follow(tier: Tier, key: &Tuple, pointer: *mut Flow, packet: &Packet, interface: u32) -> Known {
    // SAFETY: the entry is memory of the map until this program ends. Other CPUs may write to it: every field is
    // read once, and the check of the repeated key below shows whether it is still the entry that was looked up.
    let flow = unsafe { &mut *pointer };
    let mut known = Known {
        status: Status::Current,
        address: flow.backend,
        port: flow.backend_port,
        service: flow.service,
        backend_id: flow.backend_id,
        state: flow.state,
        wire_port: flow.wire_port,
    };
    let (generation, isn, state, owner) = (flow.generation, flow.isn, known.state, flow.interface);
    if flow.vip != packet.destination || flow.client_port != packet.source_port {
        return UNKNOWN;
    }
    let outdated = owner != interface
        || match packet.protocol {
            Protocol::Tcp | Protocol::Sctp => {
                transition::opens_another(packet.is_syn(), packet.sequence, isn)
            }
            // A datagram has no connection to lose: it selects anew once its backend is gone.
            Protocol::Udp => !maps::backend_state(known.backend_id).keeps(generation),
        };
    if outdated {
        known.status = Status::Outdated;
        return known;
    }
    let now = ticks();
    let late = now.wrapping_sub(flow.last_seen) >= maps::ticks_per_second();
    if late {
        flow.last_seen = now;
    }
    match tier {
        Tier::Established => {
            let end = end_of(packet, FlowState::CLIENT_FIN);
            if end != FlowState::NEW {
                if add_state(pointer, end).is_closed() {
                    events::closed(state, Verdict::Forwarded, key, pointer);
                    life::demote(key, pointer);
                }
            } else if late {
                life::restore_reply(tier, key, pointer);
            }
        }
        Tier::Transient => {
            let end = end_of(packet, FlowState::CLIENT_FIN);
            if end != FlowState::NEW {
                if add_state(pointer, end).is_closed() {
                    events::closed(state, Verdict::Forwarded, key, pointer);
                }
            } else if is_confirmation(packet, state, isn, now) && life::promote(key, pointer) {
                return known;
            }
            // The kernel evicts one half of a pair without the other.
            life::restore_reply(tier, key, pointer);
        }
    }
    known
}

/// Whether the packet confirms what the backend has answered.
#[inline(always)]
fn is_confirmation(packet: &Packet, state: FlowState, opened: u32, now: u32) -> bool {
    let ticks_per_second = maps::ticks_per_second();
    transition::is_confirmation(packet.protocol, packet.tcp_flags, state, opened, now, ticks_per_second)
}

/// What the packet says about the end of its connection; `fin` is the bit of the side that sent it.
#[inline(always)]
pub(crate) fn end_of(packet: &Packet, fin: FlowState) -> FlowState {
    transition::end_of(packet.tcp_flags, fin)
}

/// Adds bits to a flow's state and returns the new state. Atomic: the other direction may do the same.
#[inline(always)]
pub(crate) fn add_state(pointer: *mut Flow, bits: FlowState) -> FlowState {
    // SAFETY: within the entry, whose layout the contract asserts; only the state's byte changes.
    let before = unsafe {
        let word = (&raw mut (*pointer).client_port).cast::<u32>();
        atomic_or::<u32, u32, { AtomicOrdering::SeqCst }>(word, u32::from(bits.bits()) << 24)
    };
    FlowState::from_bits((before >> 24) as u8).with(bits)
}

/// Removes the flow under a key that a new one takes over, if there is one.
#[inline(always)]
pub(crate) fn give_up(key: &Tuple) {
    let mut found = maps::flow(Tier::Established, key);
    if found.is_none() {
        found = maps::flow(Tier::Transient, key);
    }
    let Some(pointer) = found else { return };
    // SAFETY: as in `follow`.
    let flow = unsafe { &*pointer };
    let interface = flow.interface;
    let wire = Tuple::new(key.client, flow.wire_port, flow.backend, flow.backend_port, key.protocol);
    life::forget(key, &wire, interface);
}

/// The same, but for one in the transient pair that leads where the new one is to lead: that one is overwritten.
#[inline(always)]
fn give_up_another(key: &Tuple, new: &Flow) {
    if maps::flow(Tier::Established, key).is_none()
        && let Some(pointer) = maps::flow(Tier::Transient, key)
    {
        // SAFETY: as in `follow`.
        if unsafe { &*pointer }.leads_as(new) {
            return;
        }
    }
    give_up(key);
}

/// Remembers a new flow, both ways; `state` is what is out of the ordinary about it.
///
/// The reply goes first, as the lock: its key is the tuple on the wire, which no two flows may share.
#[inline(always)]
pub(crate) fn open(
    key: &Tuple,
    packet: &Packet,
    interface: u32,
    choice: &Choice,
    wire_port: Port,
    state: FlowState,
) -> Result<(), Verdict> {
    let last_seen = ticks();
    let pair = maps::pair().ok_or(Verdict::Corrupt)?;
    pair.flow = Flow {
        backend: choice.address,
        vip: packet.destination,
        backend_port: choice.port,
        wire_port,
        client_port: packet.source_port,
        protocol: packet.protocol.number(),
        state,
        backend_id: choice.backend_id,
        generation: choice.generation,
        interface,
        isn: match packet.protocol {
            Protocol::Tcp | Protocol::Sctp => packet.sequence,
            Protocol::Udp => last_seen,
        },
        service: choice.service,
        last_seen,
    };
    pair.complete(key);
    give_up_another(key, &pair.flow);
    if let Some(pointer) = maps::reply(Tier::Established, &pair.reply_key)
        && !make_way(Tier::Established, &pair.reply_key, pointer, key)
    {
        return Err(Verdict::TupleTaken);
    }
    // Looked up first: an insert that fails has taken an element from the list of free ones before.
    if maps::reply(Tier::Transient, &pair.reply_key).is_some()
        || maps::insert_reply(Tier::Transient, &pair.reply_key, &pair.reply, Insert::New).is_err()
    {
        let Some(pointer) = maps::reply(Tier::Transient, &pair.reply_key) else {
            return Err(Verdict::FlowsFull);
        };
        if !make_way(Tier::Transient, &pair.reply_key, pointer, key) {
            return Err(Verdict::TupleTaken);
        }
        if !life::put_reply(pair) {
            return Err(Verdict::FlowsFull);
        }
    }
    if !life::put_flow(key, pair) {
        maps::remove_reply(Tier::Transient, &pair.reply_key);
        return Err(Verdict::FlowsFull);
    }
    Ok(())
}

/// A reply is where a new flow's is to be. `false` if it is that of another flow which is open; else that one goes.
/// If it is the new flow's own, the other half of what was lost, it stays.
#[inline(always)]
fn make_way(tier: Tier, wire: &Tuple, pointer: *mut Reply, key: &Tuple) -> bool {
    let (other, interface) = owner(pointer, wire);
    if other == *key {
        return true;
    }
    if is_open(tier, &other, wire) {
        return false;
    }
    life::forget(&other, wire, interface);
    true
}

/// Makes the flow that has this tuple on the wire give way to a connection that is none of ours. `false` if it is
/// still open, unless `always`; another interface's is neither in the way nor this one's to end.
#[inline(always)]
pub(crate) fn give_way(tier: Tier, wire: &Tuple, pointer: *mut Reply, interface: u32, always: bool) -> bool {
    let (other, owner) = owner(pointer, wire);
    if owner != interface {
        return true;
    }
    if !always && is_open(tier, &other, wire) {
        return false;
    }
    life::forget(&other, wire, interface);
    true
}

/// Key and interface of the flow that a reply belongs to.
#[inline(always)]
fn owner(pointer: *mut Reply, wire: &Tuple) -> (Tuple, u32) {
    // SAFETY: as in `follow`.
    let reply = unsafe { &*pointer };
    let (client_port, vip, vip_port) = (reply.client_port, reply.vip, reply.vip_port);
    (Tuple::new(wire.client, client_port, vip, vip_port, wire.protocol), reply.interface)
}

/// Whether there is such a flow, it has this tuple on the wire, and it is not over.
#[inline(always)]
fn is_open(tier: Tier, key: &Tuple, wire: &Tuple) -> bool {
    let Some(pointer) = maps::flow(tier, key) else { return false };
    // SAFETY: as in `follow`.
    let flow = unsafe { &*pointer };
    let (backend, port, wire_port) = (flow.backend, flow.backend_port, flow.wire_port);
    !flow.state.is_closed() && backend == wire.peer && port == wire.peer_port && wire_port == wire.client_port
}
