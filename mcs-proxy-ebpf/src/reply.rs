//! The memory of flows on the way to the pod.

use crate::{
    events,
    flow::{add_state, end_of, ticks},
    life,
    maps::{self, Tier},
    packet::Packet,
};
use mcs_proxy_ebpf::abi::{Address, FlowState, Port, Reply, Tuple, Verdict};

/// What a packet to a pod is translated to.
pub(crate) struct Origin {
    pub(crate) vip: Address,
    pub(crate) port: Port,
    /// The client's own, whatever it was on the wire.
    pub(crate) client_port: Port,
    pub(crate) service: u32,
    pub(crate) backend_id: u32,
    /// Nothing had come back on this flow before.
    pub(crate) first: bool,
}

/// Looks up which flow the packet answers, by the flow's tuple on the wire, and notes that it did.
#[inline(always)]
pub(crate) fn find(key: &Tuple, packet: &Packet, interface: u32) -> Result<Origin, Verdict> {
    if let Some(pointer) = maps::reply(Tier::Established, key) {
        return follow(Tier::Established, key, pointer, packet, interface);
    }
    match maps::reply(Tier::Transient, key) {
        Some(pointer) => follow(Tier::Transient, key, pointer, packet, interface),
        None => Err(Verdict::NoFlow),
    }
}

#[inline(always)]
fn follow(
    tier: Tier,
    key: &Tuple,
    pointer: *mut Reply,
    packet: &Packet,
    interface: u32,
) -> Result<Origin, Verdict> {
    // SAFETY: the entry is memory of the map until this program ends. Other CPUs may write to it: every field is
    // read once, and the check of the repeated key below shows whether it is still the entry that was looked up.
    let reply = unsafe { &mut *pointer };
    let origin = Origin {
        vip: reply.vip,
        port: reply.vip_port,
        client_port: reply.client_port,
        service: reply.service,
        backend_id: reply.backend_id,
        first: !reply.state.has(FlowState::ANSWERED),
    };
    let owner = reply.interface;
    if reply.backend != packet.source || reply.wire_port != packet.destination_port {
        return Err(Verdict::NoFlow);
    }
    if owner != interface {
        return Err(Verdict::OtherInterface);
    }
    let now = ticks();
    let end = end_of(packet, FlowState::BACKEND_FIN);
    let late = now.wrapping_sub(reply.last_seen) >= maps::ticks_per_second();
    if origin.first || end != FlowState::NEW || late {
        reply.state = reply.state.with(FlowState::ANSWERED);
        reply.last_seen = now;
        note(tier, key, &origin, end, now);
    }
    Ok(origin)
}

/// The flow holds the state for both directions: a reply that changes it says so there.
#[inline(always)]
fn note(tier: Tier, wire: &Tuple, origin: &Origin, end: FlowState, now: u32) {
    let key = Tuple::new(wire.client, origin.client_port, origin.vip, origin.port, wire.protocol);
    let Some(pointer) = maps::flow(tier, &key) else { return };
    // SAFETY: as in `follow`.
    let before = unsafe {
        (*pointer).last_seen = now;
        (*pointer).state
    };
    let state = add_state(pointer, end.with(FlowState::ANSWERED));
    if origin.first {
        events::answered(&key, pointer);
    }
    if end != FlowState::NEW && state.is_closed() {
        events::closed(before, Verdict::Replied, &key, pointer);
        if tier == Tier::Established {
            life::demote(&key, pointer);
        }
    }
}

/// Counts an answer that was translated.
#[inline(always)]
pub(crate) fn count(origin: &Origin, packet: &Packet) {
    maps::count_service(origin.service, |counters| {
        counters.packets_out += 1;
        counters.bytes_out += u64::from(packet.bytes);
    });
    maps::count_backend(origin.backend_id, |counters| {
        counters.first_replies += u32::from(origin.first);
        counters.bytes += u64::from(packet.bytes);
    });
}
