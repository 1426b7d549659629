//! The two programs on a pod's interface, seen from the host, and the clock.

use crate::{
    bridge, collision,
    flow::{self, Status},
    fragment, hairpin, icmp, maps,
    packet::{self, Network, Packet},
    peer, redirect, reply,
    rewrite::{End, rewrite, shift},
    roster,
    verdict::{conclude, go_on, go_on_odd},
};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use mcs_proxy_ebpf::abi::{Direction, FlowState, Stage, Tuple, Verdict};

/// On the way from a pod (ingress of the host's side of its veth).
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    if maps::redirects() {
        peer::begin();
    }
    let verdict = sort(&ctx).unwrap_or_else(|verdict| verdict);
    go_on(&ctx, verdict);
    go_on_odd(&ctx, verdict, Stage::Odd);
    conclude(&ctx, verdict)
}

/// On the way to a pod (egress of the host's side of its veth).
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    let verdict = sort_back(&ctx).unwrap_or_else(|verdict| verdict);
    go_on_odd(&ctx, verdict, Stage::OddBack);
    conclude(&ctx, verdict)
}

/// Returns the time in ticks, for whoever wants to know how old a flow is: user space test-runs it.
#[classifier]
fn clock(_: TcContext) -> i32 {
    flow::ticks() as i32
}

/// Does nothing: what the others are measured against.
#[classifier]
fn empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Most packets end here: those that are not ours.
#[inline(always)]
fn sort(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    if !maps::is_hot(Direction::FromPod, &network.destination) {
        if maps::is_hot(Direction::ToPod, &network.destination) && network.may_open(ctx) {
            return Ok(Verdict::OpenMissing);
        }
        if maps::redirects() && network.plain && maps::is_hot(Direction::ToPod, &network.source) {
            return Ok(Verdict::PeerMissing);
        }
        return Err(Verdict::NotOurs);
    }
    if network.is_mapped() {
        return Err(Verdict::Malformed);
    }
    if network.is_icmp() {
        return Ok(icmp::from_pod(ctx));
    }
    if !network.plain {
        return Ok(Verdict::OddMissing);
    }
    let verdict = forward(ctx, network);
    roster::turn_if_due();
    Ok(verdict)
}

/// A function of its own for its stack: ICMP and rejects need room too, and 512 bytes are for the deepest path.
#[inline(never)]
fn forward(ctx: &TcContext, network: Network) -> Verdict {
    match packet::transport(ctx, network) {
        Ok(packet) => translate::<false>(ctx, &packet).unwrap_or_else(|verdict| verdict),
        Err(verdict) => verdict,
    }
}

/// Translates a packet of a known flow; of any other it says who goes on with it.
#[inline(always)]
pub(crate) fn translate<const ODD: bool>(ctx: &TcContext, packet: &Packet) -> Result<Verdict, Verdict> {
    let interface = interface(ctx);
    if ODD {
        fragment::begin(packet);
    }
    let key = key_of(packet);
    let known = flow::find(&key, packet, interface);
    if known.status != Status::Current {
        if hairpin::is_answer(packet) {
            return Ok(Verdict::HairpinMissing);
        }
        collision::begin(ctx);
        return Ok(Verdict::OpenMissing);
    }
    if known.state.has(FlowState::HAIRPIN) {
        return Ok(Verdict::HairpinMissing);
    }
    // A SYN that is sent again goes through the host: what it thinks the backend's MAC address is may be out of date.
    if known.state.has(FlowState::ON_LINK) && !packet.is_syn() {
        let bridge = maps::place(interface).bridge;
        bridge::send(ctx, &packet.source, packet.protocol.number(), bridge, &known.address)?;
    }
    if known.wire_port != packet.source_port {
        shift::<ODD>(ctx, packet, End::Source, known.wire_port)?;
    }
    rewrite::<ODD>(ctx, packet, End::Destination, &known.address, known.port)?;
    if ODD {
        fragment::remember(packet, &known.address, known.service, known.backend_id, interface);
    }
    maps::count_service(known.service, |counters| {
        counters.packets_in += 1;
        counters.bytes_in += u64::from(packet.bytes);
    });
    maps::count_backend(known.backend_id, |counters| counters.bytes += u64::from(packet.bytes));
    if maps::redirects() && known.state.has(FlowState::BESIDE) {
        return Ok(peer::note_translated());
    }
    Ok(Verdict::Forwarded)
}

#[inline(always)]
fn sort_back(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    // Errors come from routers, which have no bit: the packet they quote is what counts.
    if network.is_icmp() {
        if network.is_mapped() {
            return Err(Verdict::Malformed);
        }
        if is_redirect(ctx, network) {
            return Err(Verdict::HostRedirect);
        }
        return Ok(icmp::to_pod(ctx));
    }
    if !maps::is_hot(Direction::ToPod, &network.source) {
        return Err(Verdict::NotOurs);
    }
    if network.is_mapped() {
        return Err(Verdict::Malformed);
    }
    if !network.plain {
        return Ok(Verdict::OddMissing);
    }
    Ok(backward(ctx, network))
}

/// As [`forward`].
#[inline(never)]
fn is_redirect(ctx: &TcContext, network: Network) -> bool {
    redirect::is_about_a_flow(ctx, &network, interface(ctx))
}

/// As [`forward`].
#[inline(never)]
fn backward(ctx: &TcContext, network: Network) -> Verdict {
    match packet::transport(ctx, network) {
        Ok(packet) => translate_back::<false>(ctx, &packet).unwrap_or_else(|verdict| verdict),
        Err(verdict) => verdict,
    }
}

#[inline(always)]
pub(crate) fn translate_back<const ODD: bool>(ctx: &TcContext, packet: &Packet) -> Result<Verdict, Verdict> {
    let interface = interface(ctx);
    if ODD {
        fragment::begin(packet);
    }
    let wire = Tuple::new(
        packet.destination,
        packet.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol.number(),
    );
    let origin = reply::find(&wire, packet, interface)?;
    if origin.client_port != packet.destination_port {
        shift::<ODD>(ctx, packet, End::Destination, origin.client_port)?;
    }
    rewrite::<ODD>(ctx, packet, End::Source, &origin.vip, origin.port)?;
    if ODD {
        fragment::remember(packet, &origin.vip, origin.service, origin.backend_id, interface);
    }
    reply::count(&origin, packet);
    Ok(Verdict::Replied)
}

/// The flow of a packet from a pod.
#[inline(always)]
pub(crate) fn key_of(packet: &Packet) -> Tuple {
    Tuple::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol.number(),
    )
}

/// Index of the interface that the program runs on.
#[inline(always)]
pub(crate) fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: the verifier translates this to a load of the device's index.
    unsafe { (*ctx.skb.skb).ifindex }
}
