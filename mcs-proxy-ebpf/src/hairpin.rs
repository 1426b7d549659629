//! A pod that reaches itself through a VIP.
//!
//! Its packets turn round at its own interface and never enter the host, where the checks of source addresses
//! would drop them. The pod must not see its own address as the source either, so it seems to be called from a
//! reserved one; what it answers there is how its answers are known. Both directions come in as packets *from* the
//! pod:
//!
//! ```text
//!   client:port -> VIP:service     becomes   reserved:port -> client:target
//!   client:target -> reserved:port becomes   VIP:service -> client:port
//! ```
//!
//! Packets of a connection that the daemon has ended come here as well: see [`FlowState::CUT`].
//!
//! The reply is kept under (client, port, client, target), as that of any flow is under (client, port, backend,
//! target): no packet of another flow has one address at both ends.

use crate::{
    flow::add_state,
    fragment,
    maps::{self, Tier},
    packet::{self, Packet},
    reject, reply,
    rewrite::{End, rewrite, shift},
    shape,
    tcx::{interface, key_of},
    verdict::conclude,
    wire::turn_around,
};
use aya_ebpf::{macros::classifier, programs::TcContext};
use mcs_proxy_ebpf::{
    abi::{Address, FlowState, Port, Tuple, Verdict},
    transition::TCP_RST,
};

/// Goes on with a packet of a pod's conversation with itself.
#[classifier]
fn hairpin(ctx: TcContext) -> i32 {
    let mut verdict = turn(&ctx).unwrap_or_else(|verdict| verdict);
    if verdict == Verdict::Ended {
        // What cannot be answered is not to reach the backend either, nor anyone beneath us.
        let is_answered = reject::answer(&ctx) == Verdict::Rejected;
        verdict = if is_answered { Verdict::Ended } else { Verdict::RejectLimited };
    }
    conclude(&ctx, verdict)
}

#[inline(always)]
fn turn(ctx: &TcContext) -> Result<Verdict, Verdict> {
    let network = packet::network(ctx)?;
    let shape = shape::find(ctx, &network)?;
    let packet = packet::anywhere(ctx, network, shape)?;
    fragment::refuse()?;
    if is_answer(&packet) {
        return answer(ctx, &packet);
    }
    call(ctx, &packet)
}

/// Whether this is a pod's answer to itself.
#[inline(always)]
pub(crate) fn is_answer(packet: &Packet) -> bool {
    packet.destination == maps::hairpin_address(packet.v4)
}

/// The flow is known, or was made just now.
#[inline(always)]
fn call(ctx: &TcContext, packet: &Packet) -> Result<Verdict, Verdict> {
    let key = key_of(packet);
    let mut found = maps::flow(Tier::Established, &key);
    if found.is_none() {
        found = maps::flow(Tier::Transient, &key);
    }
    let Some(pointer) = found else { return Err(Verdict::NoFlow) };
    // SAFETY: as in `flow::follow`.
    let flow = unsafe { &*pointer };
    let is_cut = flow.state.is_cut();
    if is_cut {
        // It is over, but stays known for a while: whatever else comes of it is answered alike.
        add_state(pointer, FlowState::RESET);
        // Only a RST never is (RFC 9293, section 3.10.7.1). The pod's own goes on: by it the backend hears of the end.
        if packet.tcp_flags & TCP_RST == 0 {
            return Err(Verdict::Ended);
        }
    }
    let (backend, port, wire_port) = (flow.backend, flow.backend_port, flow.wire_port);
    let (service, backend_id) = (flow.service, flow.backend_id);
    let to_itself = backend == packet.source;
    if !(to_itself || is_cut) || flow.client_port != packet.source_port {
        return Err(Verdict::NoFlow);
    }
    let ends = Ends {
        source: maps::hairpin_address(packet.v4),
        source_port: wire_port,
        destination: backend,
        destination_port: port,
    };
    if to_itself {
        translate(ctx, packet, &ends)?;
    } else {
        hand_on(ctx, packet, &ends)?;
    }
    maps::count_service(service, |counters| {
        counters.packets_in += 1;
        counters.bytes_in += u64::from(packet.bytes);
    });
    maps::count_backend(backend_id, |counters| counters.bytes += u64::from(packet.bytes));
    Ok(if to_itself { Verdict::HairpinForwarded } else { Verdict::Forwarded })
}

#[inline(always)]
fn answer(ctx: &TcContext, packet: &Packet) -> Result<Verdict, Verdict> {
    let wire = Tuple::new(
        packet.source,
        packet.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol.number(),
    );
    let origin = reply::find(&wire, packet, interface(ctx))?;
    let ends = Ends {
        source: origin.vip,
        source_port: origin.port,
        destination: packet.source,
        destination_port: origin.client_port,
    };
    translate(ctx, packet, &ends)?;
    reply::count(&origin, packet);
    Ok(Verdict::HairpinReplied)
}

/// What a packet says about itself once it is translated.
struct Ends {
    source: Address,
    source_port: Port,
    destination: Address,
    destination_port: Port,
}

/// Both ends, and to the pod from the gateway that it had sent to.
#[inline(never)]
fn translate(ctx: &TcContext, packet: &Packet, ends: &Ends) -> Result<(), Verdict> {
    turn_around(ctx)?;
    rewrite::<true>(ctx, packet, End::Source, &ends.source, ends.source_port)?;
    rewrite::<true>(ctx, packet, End::Destination, &ends.destination, ends.destination_port)
}

/// As any packet to a backend: by way of the host, from the pod's own address.
#[inline(never)]
fn hand_on(ctx: &TcContext, packet: &Packet, ends: &Ends) -> Result<(), Verdict> {
    if ends.source_port != packet.source_port {
        shift::<true>(ctx, packet, End::Source, ends.source_port)?;
    }
    rewrite::<true>(ctx, packet, End::Destination, &ends.destination, ends.destination_port)
}
