//! Fragments: the first of a datagram has the ports and is translated as any packet; the others follow it.
//!
//! They come in order from a pod's own stack, and nearly always from the network. One that comes before its first
//! passes untouched.

use crate::{
    aside, bridge,
    flow::ticks,
    maps,
    packet::{Network, Packet},
    rewrite::{End, rewrite_address},
    shape::Shape,
    tcx::interface,
};
use aya_ebpf::programs::TcContext;
use core::ptr;
use mcs_proxy_ebpf::abi::{Address, Fragment, FragmentKey, Verdict};

/// As long as Linux waits for the rest of a datagram (`ipfrag_time`). IPv4's identifications come round again.
const SECONDS: u32 = 30;

/// Forgets what the last datagram with this identification was translated to: whatever becomes of this one's first
/// fragment becomes of the others.
#[inline(always)]
pub(crate) fn begin(packet: &Packet) {
    if aside::shape().is_first()
        && let Some(aside) = maps::aside()
    {
        aside.fragment_key = key_of(packet);
        maps::remove_fragment(&aside.fragment_key);
    }
}

/// Remembers what a first fragment was translated to.
#[inline(always)]
pub(crate) fn remember(packet: &Packet, address: &Address, service: u32, backend_id: u32, interface: u32) {
    if aside::shape().is_first()
        && let Some(aside) = maps::aside()
    {
        aside.fragment_key = key_of(packet);
        aside.fragment =
            Fragment { address: *address, seal: 0, interface, seen: ticks(), service, backend_id }
                .sealed(&aside.fragment_key);
        maps::insert_fragment(&aside.fragment_key, &aside.fragment);
    }
}

/// Fails on a first fragment: of a pod's call to itself, whose later ones would have to turn round as well. What is
/// beneath us puts the datagram together first.
#[inline(always)]
pub(crate) fn refuse() -> Result<(), Verdict> {
    if aside::shape().is_first() { Err(Verdict::Unsupported) } else { Ok(()) }
}

/// Translates a later fragment as its first one was.
#[inline(always)]
pub(crate) fn follow(ctx: &TcContext, network: &Network, shape: Shape, end: End) -> Result<Verdict, Verdict> {
    // A fragment without a transport header must be as long as it says all the same.
    if network.end(ctx)? < shape.transport() as u32 {
        return Err(Verdict::Malformed);
    }
    let aside = maps::aside().ok_or(Verdict::Corrupt)?;
    aside.fragment_key =
        FragmentKey::new(network.source, network.destination, shape.identification(), shape.protocol());
    let pointer = maps::fragment(&aside.fragment_key).ok_or(Verdict::LoneFragment)?;
    // SAFETY: the pointer is to an aligned value of the map. Volatile: it is read once, and what was read must fit its
    // seal.
    aside.fragment = unsafe {
        Fragment {
            address: ptr::read_volatile(&raw const (*pointer).address),
            seal: ptr::read_volatile(&raw const (*pointer).seal),
            interface: ptr::read_volatile(&raw const (*pointer).interface),
            seen: ptr::read_volatile(&raw const (*pointer).seen),
            service: ptr::read_volatile(&raw const (*pointer).service),
            backend_id: ptr::read_volatile(&raw const (*pointer).backend_id),
        }
    };
    let fragment = &aside.fragment;
    if !fragment.is_of(&aside.fragment_key)
        || fragment.interface != interface(ctx)
        || ticks().wrapping_sub(fragment.seen) > SECONDS * maps::ticks_per_second()
    {
        return Err(Verdict::LoneFragment);
    }
    if matches!(end, End::Destination) {
        // Where the first one went, or the host's connection tracking would wait for it.
        let bridge = maps::place(fragment.interface).bridge;
        if bridge != 0 {
            bridge::send(ctx, &network.source, shape.protocol(), bridge, &fragment.address)?;
        }
    }
    rewrite_address(ctx, network, end, &fragment.address)?;
    let bytes = u64::from(network.bytes(ctx));
    maps::count_backend(fragment.backend_id, |counters| counters.bytes += bytes);
    maps::count_service(fragment.service, |counters| match end {
        End::Destination => {
            counters.packets_in += 1;
            counters.bytes_in += bytes;
        }
        End::Source => {
            counters.packets_out += 1;
            counters.bytes_out += bytes;
        }
    });
    Ok(match end {
        End::Destination => Verdict::Forwarded,
        End::Source => Verdict::Replied,
    })
}

#[inline(always)]
fn key_of(packet: &Packet) -> FragmentKey {
    let identification = aside::shape().identification();
    FragmentKey::new(packet.source, packet.destination, identification, packet.protocol.number())
}
