//! Packets of no flow: the first of a new one, those that nobody has an answer for, and a pod's own connections to
//! backends. A program of its own, which runs after `from_pod` has found that it knows no flow.

use crate::{
    bridge,
    collision::{self, check_direct},
    flow, lookup, maps,
    packet::{self, Network},
    reject,
    rewrite::{End, rewrite, shift},
    tcx::{interface, key_of},
    verdict::{conclude, go_on},
};
use aya_ebpf::{macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use mcs_proxy_ebpf::abi::{Direction, FlowState, Verdict};

/// Goes on with a packet from a pod that is of no flow.
#[classifier]
fn open(ctx: TcContext) -> i32 {
    let mut verdict = sort(&ctx).unwrap_or_else(|verdict| verdict);
    if verdict == Verdict::NoBackend {
        verdict = reject::answer(&ctx);
    }
    go_on(&ctx, verdict);
    conclude(&ctx, verdict)
}

#[inline(always)]
fn sort(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    if !maps::is_hot(Direction::FromPod, &network.destination) {
        return Ok(check_direct(ctx, network));
    }
    Ok(begin(ctx, network))
}

/// A function of its own for its stack, which rejects need as well.
#[inline(never)]
fn begin(ctx: &TcContext, network: Network) -> Verdict {
    offer(ctx, network).unwrap_or_else(|verdict| verdict)
}

/// Offers the packet one backend, by one source port.
#[inline(always)]
fn offer(ctx: &TcContext, network: Network) -> Result<Verdict, Verdict> {
    let packet = packet::transport(ctx, network)?;
    let interface = interface(ctx);
    let key = key_of(&packet);
    let choice = lookup::choose(&packet)?;
    flow::give_up(&key);
    let wire_port = collision::wire_port(ctx, &packet, choice);
    let place = maps::place(interface);
    let mut state = FlowState::NEW;
    if choice.address == packet.source {
        state = FlowState::HAIRPIN;
    } else if collision::is_taken_by_the_pod(ctx, &packet, choice, wire_port, place.netns) {
        return Ok(collision::again(ctx, choice));
    } else if place.bridge != 0 && bridge::is_on_link(ctx, &packet, place.bridge, &choice.address) {
        state = FlowState::ON_LINK;
    }
    match flow::open(&key, &packet, interface, choice, wire_port, state) {
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
        bridge::send(ctx, &packet, place.bridge, &choice.address)?;
    }
    if wire_port != packet.source_port {
        shift(ctx, &packet, End::Source, wire_port)?;
    }
    rewrite(ctx, &packet, End::Destination, &choice.address, choice.port)?;
    maps::count_service(choice.service, |counters| {
        counters.packets_in += 1;
        counters.bytes_in += packet.bytes;
    });
    maps::count_backend(choice.backend_id, |counters| counters.bytes += packet.bytes);
    Ok(Verdict::NewFlow)
}
