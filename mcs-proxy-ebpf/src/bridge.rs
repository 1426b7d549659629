//! Client and backend on one bridge.
//!
//! The backend answers such a client directly, past the host. Were the client's packets to go through the host, its
//! connection tracking would see half of the conversation and drop the rest as invalid, and it would tell the client
//! of a shorter way (ICMP redirect). So they go directly too, as soon as the host knows the backend's MAC address;
//! until then through the host, which then asks for it.

use crate::{
    hop::{Lookup, NO_NEIGHBOUR, SUCCESS},
    packet::{header, store},
};
use aya_ebpf::programs::TcContext;
use mcs_proxy_ebpf::abi::{Address, Verdict};

/// No MAC address has more than 48 bits.
const ELSEWHERE: u64 = 1 << 48;
const UNKNOWN: u64 = 1 << 49;

/// Asks the host where it would forward a packet to.
///
/// Returns the next hop's MAC address, as its bytes lie in memory, if the backend itself is the next hop and on the
/// bridge; [`UNKNOWN`] if the host has yet to ask for it; [`ELSEWHERE`] if not.
#[inline(never)]
fn find(ctx: &TcContext, source: &Address, protocol: u8, bridge: u32, backend: &Address) -> u64 {
    let mut lookup = Lookup::new(source, backend, protocol, bridge);
    let wanted = lookup.destination;
    let result = lookup.ask(ctx);
    if lookup.interface != bridge || lookup.destination != wanted {
        return ELSEWHERE;
    }
    match result {
        SUCCESS => lookup.next_mac(),
        NO_NEIGHBOUR => UNKNOWN,
        _ => ELSEWHERE,
    }
}

/// Whether the backend is on the bridge itself, not behind a gateway.
#[inline(always)]
pub(crate) fn is_on_link(
    ctx: &TcContext,
    source: &Address,
    protocol: u8,
    bridge: u32,
    backend: &Address,
) -> bool {
    find(ctx, source, protocol, bridge, backend) != ELSEWHERE
}

/// Sends the packet straight there, if it is known where that is.
#[inline(always)]
pub(crate) fn send(
    ctx: &TcContext,
    source: &Address,
    protocol: u8,
    bridge: u32,
    backend: &Address,
) -> Result<(), Verdict> {
    let mac = find(ctx, source, protocol, bridge, backend);
    if mac != ELSEWHERE && mac != UNKNOWN {
        let ethernet = header(ctx, 0, 6).ok_or(Verdict::RewriteFailed)?;
        store(ethernet, 0, mac as u32);
        store(ethernet, 4, (mac >> 32) as u16);
    }
    Ok(())
}
