//! Client and backend on one bridge.
//!
//! The backend answers such a client directly, past the host. Were the client's packets to go through the host, its
//! connection tracking would see half of the conversation and drop the rest as invalid, and it would tell the client
//! of a shorter way (ICMP redirect). So they go directly too, as soon as the host knows the backend's MAC address;
//! until then through the host, which then asks for it.

use crate::{
    hop::{self, NO_NEIGHBOUR, SUCCESS, halves},
    wire::store,
};
use aya_ebpf::programs::TcContext;
use mcs_proxy_ebpf::abi::{Address, Verdict};

/// Whether the backend is on the bridge itself, not behind a gateway. The host may have yet to ask for its MAC address.
#[inline(never)]
pub(crate) fn is_on_link(
    ctx: &TcContext,
    source: &Address,
    protocol: u8,
    bridge: u32,
    backend: &Address,
) -> bool {
    let Some((answer, lookup)) = hop::ask_anew(ctx, source, backend, protocol, bridge) else { return false };
    matches!(answer, SUCCESS | NO_NEIGHBOUR) && lookup.interface == bridge && hop::leads_to(lookup, backend)
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
    if let Some(hop) = hop::find(ctx, source, backend, protocol, bridge)
        && hop.interface == bridge
        && hop.is_direct()
    {
        store(ctx, 0, &halves(hop.next_mac()))?;
    }
    Ok(())
}
