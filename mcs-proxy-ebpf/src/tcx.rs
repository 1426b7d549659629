//! The two programs on a pod's interface, seen from the host, and the clock.

use crate::{
    flow::{self, Status},
    icmp, lookup, maps,
    packet::{self, Network},
    redirect, reject, reply,
    rewrite::{End, rewrite},
    roster,
    verdict::conclude,
};
use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use aya_log_ebpf::debug;
use mcs_proxy_ebpf::abi::{Direction, Tuple, Verdict};

/// On the way from a pod (ingress of the host's side of its veth).
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    let mut verdict = sort(&ctx).unwrap_or_else(|verdict| verdict);
    if verdict == Verdict::NoBackend {
        verdict = reject::answer(&ctx);
    }
    conclude(&ctx, verdict)
}

/// On the way to a pod (egress of the host's side of its veth).
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    conclude(&ctx, sort_back(&ctx).unwrap_or_else(|verdict| verdict))
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
        return Err(Verdict::NotOurs);
    }
    if network.is_icmp() {
        return Ok(icmp::from_pod(ctx));
    }
    let verdict = forward(ctx, network);
    roster::turn_if_due();
    Ok(verdict)
}

/// A function of its own for its stack: ICMP and rejects need room too, and 512 bytes are for the deepest path.
#[inline(never)]
fn forward(ctx: &TcContext, network: Network) -> Verdict {
    translate(ctx, network).unwrap_or_else(|verdict| verdict)
}

#[inline(always)]
fn translate(ctx: &TcContext, network: Network) -> Result<Verdict, Verdict> {
    let packet = packet::transport(ctx, network)?;
    let interface = interface(ctx);
    let key = Tuple::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol.number(),
    );
    let known = flow::find(&key, &packet, interface);
    if known.status == Status::Current {
        rewrite(ctx, &packet, End::Destination, &known.address, known.port)?;
        maps::count_service(known.service, |counters| {
            counters.packets_in += 1;
            counters.bytes_in += packet.bytes;
        });
        maps::count_backend(known.backend_id, |counters| counters.bytes += packet.bytes);
        return Ok(Verdict::Forwarded);
    }
    let choice = lookup::choose(&packet)?;
    if choice.address == packet.source {
        return Err(Verdict::Hairpin);
    }
    flow::open(&key, &packet, interface, choice, &known)?;
    rewrite(ctx, &packet, End::Destination, &choice.address, choice.port)?;
    maps::count_service(choice.service, |counters| {
        counters.flows += 1;
        counters.packets_in += 1;
        counters.bytes_in += packet.bytes;
    });
    maps::count_backend(choice.backend_id, |counters| {
        counters.flows += 1;
        counters.bytes += packet.bytes;
    });
    debug!(
        ctx,
        "interface {}: new flow, service {}, backend {}", interface, choice.service, choice.backend_id
    );
    Ok(Verdict::NewFlow)
}

#[inline(always)]
fn sort_back(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    // Errors come from routers, which have no bit: the packet they quote is what counts.
    if network.is_icmp() {
        if is_redirect(ctx, network) {
            return Err(Verdict::HostRedirect);
        }
        return Ok(icmp::to_pod(ctx));
    }
    if !maps::is_hot(Direction::ToPod, &network.source) {
        return Err(Verdict::NotOurs);
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
    translate_back(ctx, network).unwrap_or_else(|verdict| verdict)
}

#[inline(always)]
fn translate_back(ctx: &TcContext, network: Network) -> Result<Verdict, Verdict> {
    let packet = packet::transport(ctx, network)?;
    let origin = reply::find(&packet, interface(ctx))?;
    rewrite(ctx, &packet, End::Source, &origin.vip, origin.port)?;
    maps::count_service(origin.service, |counters| {
        counters.packets_out += 1;
        counters.bytes_out += packet.bytes;
    });
    maps::count_backend(origin.backend_id, |counters| {
        counters.first_replies += u32::from(origin.first);
        counters.bytes += packet.bytes;
    });
    Ok(Verdict::Replied)
}

/// Index of the interface that the program runs on.
#[inline(always)]
pub(crate) fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: the verifier translates this to a load of the device's index.
    unsafe { (*ctx.skb.skb).ifindex }
}
