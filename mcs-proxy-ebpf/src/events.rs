//! What happens to flows, told to whoever listens. While nobody does, each call here is one look at a word of the map,
//! and there are calls only where a flow begins, is first answered, or ends, and where a packet of no flow does.

use crate::{flow::ticks, lookup::Choice, maps, tcx::interface};
use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, programs::TcContext};
use mcs_proxy_ebpf::abi::{
    Address, Event, EventKind, Flow, FlowState, Port, ServiceKey, Tuple, Verdict, is_leased,
};

/// A flow has got its first answer.
#[inline(always)]
pub(crate) fn answered(key: &Tuple, flow: *const Flow) {
    if is_wanted(EventKind::Reply) {
        tell_flow(EventKind::Reply, Verdict::Replied, key, flow);
    }
}

/// A flow has ended by this packet, if it had not `before`.
#[inline(always)]
pub(crate) fn closed(before: FlowState, verdict: Verdict, key: &Tuple, flow: *const Flow) {
    if !before.is_closed() && is_wanted(EventKind::Closed) {
        tell_flow(EventKind::Closed, verdict, key, flow);
    }
}

/// A packet of no flow has come to this verdict. Its tuple is in [`maps::aside`], and of a new flow the rest is in
/// [`maps::pair`], where it was made.
#[inline(always)]
pub(crate) fn opening(ctx: &TcContext, verdict: Verdict) {
    // Compared one by one: an `Option` across a join would be undefined where it is `None`.
    let kind = match EventKind::of_opening(verdict) {
        Some(kind) => kind as u32,
        None => NO_KIND,
    };
    if kind != NO_KIND && is_leased(maps::event_lease(kind), ticks()) {
        tell_opening(ctx, kind, verdict);
    }
}

/// A socket has connected to a backend, or has sent it a first datagram; or it was refused, and there is none.
#[inline(always)]
pub(crate) fn called(
    kind: EventKind,
    verdict: Verdict,
    called: &ServiceKey,
    choice: Option<&Choice>,
    cookie: u64,
) {
    // On the stack: a process may be interrupted by another, and by packets.
    let mut event = Event {
        vip: called.vip,
        vip_port: called.port,
        protocol: called.protocol,
        cookie,
        kind: kind as u8,
        verdict: verdict as u8,
        ..Event::EMPTY
    };
    if let Some(choice) = choice {
        event.backend = choice.address;
        event.backend_port = choice.port;
    }
    publish(&mut event);
}

const NO_KIND: u32 = u32::MAX;

/// Whether someone listens to events of this kind.
#[inline(always)]
pub(crate) fn is_wanted(kind: EventKind) -> bool {
    is_leased(maps::event_lease(kind as u32), ticks())
}

#[inline(never)]
fn tell_flow(kind: EventKind, verdict: Verdict, key: &Tuple, flow: *const Flow) {
    let Some(event) = maps::event() else { return };
    name_client(event, kind as u8, verdict, key);
    // SAFETY: as in `flow::follow`.
    name_flow(event, unsafe { &*flow });
    publish(event);
}

#[inline(never)]
fn tell_opening(ctx: &TcContext, kind: u32, verdict: Verdict) {
    let Some(event) = maps::event() else { return };
    let Some(aside) = maps::aside() else { return };
    name_client(event, kind as u8, verdict, &aside.key);
    event.interface = interface(ctx);
    if kind == EventKind::New as u32 {
        let Some(pair) = maps::pair() else { return };
        name_flow(event, &pair.flow);
        event.verdict = Verdict::NewFlow as u8;
    }
    if verdict == Verdict::DirectTaken {
        event.backend = event.vip;
        event.backend_port = event.vip_port;
        event.vip = Address::UNSPECIFIED;
        event.vip_port = Port::from_raw(0);
    }
    publish(event);
}

#[inline(always)]
fn name_client(event: &mut Event, kind: u8, verdict: Verdict, key: &Tuple) {
    *event = Event {
        client: key.client,
        client_port: key.client_port,
        vip: key.peer,
        vip_port: key.peer_port,
        protocol: key.protocol,
        kind,
        verdict: verdict as u8,
        ..Event::EMPTY
    };
}

#[inline(always)]
fn name_flow(event: &mut Event, flow: &Flow) {
    event.backend = flow.backend;
    event.backend_port = flow.backend_port;
    event.state = flow.state;
    event.interface = flow.interface;
}

#[inline(always)]
fn publish(event: &mut Event) {
    event.sequence = maps::next_event();
    // SAFETY: the helper takes nothing.
    event.time = unsafe { bpf_ktime_get_boot_ns() };
    event.seal = event.seal_for();
    maps::put_event(event);
}
