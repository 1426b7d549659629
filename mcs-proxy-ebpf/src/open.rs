//! Packets of no flow: the first of a new one, those that nobody has an answer for, and a pod's own connections to
//! backends. A program of its own, which runs after `from_pod` has found that it knows no flow.

use crate::{
    bridge,
    collision::{self, check_direct},
    events, flow, fragment,
    lookup::{self, Choice},
    maps,
    packet::{self, Packet},
    peer, reject,
    rewrite::{End, rewrite, shift},
    shape,
    tcx::{interface, key_of},
    verdict::{conclude, go_on},
};
use aya_ebpf::{macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use mcs_proxy_ebpf::abi::{Direction, FlowState, Tuple, Verdict};

/// Goes on with a packet from a pod that is of no flow.
#[classifier]
fn open(ctx: TcContext) -> i32 {
    let mut verdict = sort(&ctx).unwrap_or_else(|verdict| verdict);
    if verdict == Verdict::NoBackend {
        verdict = reject::answer(&ctx);
    }
    events::opening(&ctx, verdict);
    go_on(&ctx, verdict);
    conclude(&ctx, verdict)
}

#[inline(always)]
fn sort(ctx: &TcContext) -> Result<Verdict, Verdict> {
    if !maps::is_hot(Direction::FromPod, &packet::network(ctx)?.destination) {
        return Ok(check_direct(ctx));
    }
    Ok(begin(ctx))
}

/// A function of its own for its stack, which rejects need as well. It reads the network header again: handed over, it
/// would lie on the stack all the while.
#[inline(never)]
fn begin(ctx: &TcContext) -> Verdict {
    read(ctx).unwrap_or_else(|verdict| verdict)
}

#[inline(always)]
fn read(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    let shape = shape::find(ctx, &network)?;
    let packet = packet::anywhere(ctx, network, shape)?;
    let key = &mut maps::aside().ok_or(Verdict::Corrupt)?.key;
    *key = key_of(&packet);
    let offered = offer(ctx, &packet, key);
    // What opens a connection ends what was under its key, even if nobody here takes it: beneath us it may find a
    // backend, and what follows it must not find the old one.
    if offered.is_err() && packet.may_open() {
        flow::give_up(key);
    }
    offered
}

/// Offers the packet one backend, by one source port. An error says that no flow was opened.
#[inline(always)]
fn offer(ctx: &TcContext, packet: &Packet, key: &Tuple) -> Result<Verdict, Verdict> {
    let interface = interface(ctx);
    let choice = lookup::choose(packet)?;
    let wire_port = collision::wire_port(ctx, packet, choice);
    let place = maps::place(interface);
    let mut state = FlowState::NEW;
    if choice.address == packet.source {
        fragment::refuse()?;
        state = FlowState::HAIRPIN;
    } else if collision::is_taken_by_the_pod(ctx, packet, choice, wire_port, place.netns) {
        return Err(collision::again(ctx, choice));
    } else if place.bridge != 0 && is_on_link(ctx, packet, place.bridge, choice) {
        state = FlowState::ON_LINK;
    } else if maps::redirects()
        && place.bridge == 0
        && peer::is_beside(ctx, &packet.source, packet.protocol.number(), &choice.address)
    {
        state = FlowState::BESIDE;
    }
    match flow::open(key, packet, interface, choice, wire_port, state) {
        Err(Verdict::TupleTaken) => return Ok(collision::again(ctx, choice)),
        opened => opened?,
    }
    maps::count_service(choice.service, |counters| counters.flows += 1);
    maps::count_backend(choice.backend_id, |counters| counters.flows += 1);
    debug!(
        ctx,
        "interface {}: new flow, service {}, backend {}", interface, choice.service, choice.backend_id
    );
    if state.has(FlowState::HAIRPIN) {
        return Ok(Verdict::HairpinMissing);
    }
    if state.has(FlowState::ON_LINK) {
        bridge::send(ctx, &packet.source, packet.protocol.number(), place.bridge, &choice.address)?;
    }
    if wire_port != packet.source_port {
        shift::<true>(ctx, packet, End::Source, wire_port)?;
    }
    rewrite::<true>(ctx, packet, End::Destination, &choice.address, choice.port)?;
    fragment::remember(packet, &choice.address, choice.service, choice.backend_id, interface);
    maps::count_service(choice.service, |counters| {
        counters.packets_in += 1;
        counters.bytes_in += u64::from(packet.bytes);
    });
    maps::count_backend(choice.backend_id, |counters| counters.bytes += u64::from(packet.bytes));
    if maps::redirects() && state.has(FlowState::BESIDE) {
        maps::count_verdict(Verdict::NewFlow);
        return Ok(peer::note_translated());
    }
    Ok(Verdict::NewFlow)
}

#[inline(always)]
fn is_on_link(ctx: &TcContext, packet: &Packet, bridge: u32, choice: &Choice) -> bool {
    bridge::is_on_link(ctx, &packet.source, packet.protocol.number(), bridge, &choice.address)
}
