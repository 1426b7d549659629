//! From one pod of the node straight into another, past the host's IP stack (`--redirect`): no route, no connection
//! tracking, no rule of the host's sees the packets of such a flow, in neither direction.
//!
//! Whether a flow goes so is settled when it begins and holds for its life: connection tracking that sees half of
//! a conversation calls the rest invalid, and kube-proxy has that dropped. So both its pods must be on interfaces of ours.
//!
//! ```text
//!   the client's interface:   from_pod translates, peer hands over to the backend's interface
//!   the backend's interface:  from_pod sees a backend's address as the source, peer finds the flow, translates back
//!                             and hands over to the client's interface
//! ```

use crate::{
    hop::{self, Hop, SUCCESS, halves},
    maps::{self, Tier},
    packet, reply,
    rewrite::{End, rewrite, shift},
    tcx::interface,
    verdict::conclude,
    wire::store,
};
use aya_ebpf::{helpers::generated::bpf_redirect_peer, macros::classifier, programs::TcContext};
use mcs_proxy_ebpf::abi::{Address, FlowState, Tuple, Verdict};

/// Goes on with a packet that may be handed over to another pod.
#[classifier]
fn peer(ctx: TcContext) -> i32 {
    let result = if is_translated() { forward(&ctx) } else { backward(&ctx) };
    match result {
        Ok(to) => {
            maps::count_verdict(Verdict::Redirected);
            // SAFETY: the helper notes the interface and returns `TC_ACT_REDIRECT`.
            unsafe { bpf_redirect_peer(to, 0) as i32 }
        }
        Err(verdict) => conclude(&ctx, verdict),
    }
}

/// Before anything else is done with a packet: what the one before it has left.
#[inline(always)]
pub(crate) fn begin() {
    if let Some(aside) = maps::aside() {
        aside.translated = 0;
    }
}

/// The packet was translated, and its flow goes so.
#[inline(always)]
pub(crate) fn note_translated() -> Verdict {
    if let Some(aside) = maps::aside() {
        aside.translated = 1;
    }
    Verdict::PeerMissing
}

#[inline(always)]
fn is_translated() -> bool {
    maps::aside().is_some_and(|aside| aside.translated == 1)
}

/// Whether a new flow to this backend is to go so: the host would forward it to another pod of ours, and knows how.
#[inline(never)]
pub(crate) fn is_beside(ctx: &TcContext, source: &Address, protocol: u8, backend: &Address) -> bool {
    let own = interface(ctx);
    let Some((answer, lookup)) = hop::ask_anew(ctx, source, backend, protocol, own) else { return false };
    answer == SUCCESS && lookup.interface != own && is_a_pods(lookup.interface)
}

/// No bridge's: there, packets stay on the bridge.
#[inline(always)]
fn is_a_pods(interface: u32) -> bool {
    let place = maps::place(interface);
    place.netns >= 0 && place.bridge == 0
}

/// The packet is as its backend is to get it. If the host no longer knows the way, it goes through the host.
#[inline(always)]
fn forward(ctx: &TcContext) -> Result<u32, Verdict> {
    let network = packet::network(ctx)?;
    let on = hop::find(ctx, &network.source, &network.destination, network.protocol, interface(ctx))
        .ok_or(Verdict::Forwarded)?;
    if !is_a_pods(on.interface) {
        return Err(Verdict::Forwarded);
    }
    set_macs(ctx, on)?;
    Ok(on.interface)
}

/// A packet that has a backend's address as its source: translated back, if it answers a flow that goes so. It must come
/// from where the host would look for the backend, and its client must be where the host would look for that.
#[inline(always)]
fn backward(ctx: &TcContext) -> Result<u32, Verdict> {
    let packet = packet::transport(ctx, packet::network(ctx)?)?;
    let wire = Tuple::new(
        packet.destination,
        packet.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol.number(),
    );
    let (own, client) = (interface(ctx), client_interface(&wire));
    if client == NOBODY {
        return Err(Verdict::NotOurs);
    }
    let protocol = packet.protocol.number();
    let back =
        hop::find(ctx, &packet.destination, &packet.source, protocol, client).ok_or(Verdict::NotOurs)?;
    if back.interface != own {
        return Err(Verdict::NotOurs);
    }
    let on = hop::find(ctx, &packet.source, &packet.destination, protocol, own).ok_or(Verdict::NotOurs)?;
    if on.interface != client {
        return Err(Verdict::NotOurs);
    }
    let origin = reply::find(&wire, &packet, client)?;
    if origin.client_port != packet.destination_port {
        shift::<false>(ctx, &packet, End::Destination, origin.client_port)?;
    }
    rewrite::<false>(ctx, &packet, End::Source, &origin.vip, origin.port)?;
    reply::count(&origin, &packet);
    set_macs(ctx, on)?;
    Ok(client)
}

/// No interface has this index.
const NOBODY: u32 = 0;

/// The interface of the client whose flow has this tuple on the wire, if that flow goes past the host.
#[inline(always)]
fn client_interface(wire: &Tuple) -> u32 {
    let mut found = maps::reply(Tier::Established, wire);
    if found.is_none() {
        found = maps::reply(Tier::Transient, wire);
    }
    let Some(pointer) = found else { return NOBODY };
    // SAFETY: the entry is memory of the map until this program ends.
    let (state, interface) = unsafe { ((*pointer).state, (*pointer).interface) };
    if state.has(FlowState::BESIDE) { interface } else { NOBODY }
}

#[inline(always)]
fn set_macs(ctx: &TcContext, on: &Hop) -> Result<(), Verdict> {
    store(ctx, 0, &[halves(on.next_mac()), halves(on.own_mac)])
}
