//! Client and backend on one bridge.
//!
//! The backend answers such a client directly, past the host. Were the client's packets to go through the host, its
//! connection tracking would see half of the conversation and drop the rest as invalid, and it would tell the client
//! of a shorter way (ICMP redirect). So they go directly too, as soon as the host knows the backend's MAC address;
//! until then through the host, which then asks for it.

use crate::packet::{header, store};
use aya_ebpf::{helpers::generated::bpf_fib_lookup, programs::TcContext};
use mcs_proxy_ebpf::abi::{Address, Verdict};

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h) in fields that need no unions.
#[repr(C)]
struct Lookup {
    family: u8,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    /// 0: the length of the packet itself counts.
    length: u16,
    /// In: where the packet comes in. Out: where it would go out.
    interface: u32,
    traffic_class: u32,
    source: [u64; 2],
    /// Out: the gateway, if there is one.
    destination: [u64; 2],
    /// The last six bytes are the MAC address of the next hop.
    tail: [u64; 2],
}

const _: () = assert!(size_of::<Lookup>() == 64);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SUCCESS: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;

/// No MAC address has more than 48 bits.
const ELSEWHERE: u64 = 1 << 48;
const UNKNOWN: u64 = 1 << 49;

/// Asks the host where it would forward a packet to.
///
/// Returns the next hop's MAC address, as its bytes lie in memory, if the backend itself is the next hop and on the
/// bridge; [`UNKNOWN`] if the host has yet to ask for it; [`ELSEWHERE`] if not.
#[inline(never)]
fn find(ctx: &TcContext, source: &Address, protocol: u8, bridge: u32, backend: &Address) -> u64 {
    let (family, source, destination) = if source.is_v4() {
        (AF_INET, [u64::from(source.v4_raw()), 0], [u64::from(backend.v4_raw()), 0])
    } else {
        (AF_INET6, source.words(), backend.words())
    };
    let mut lookup = Lookup {
        family,
        protocol,
        source_port: 0,
        destination_port: 0,
        length: 0,
        interface: bridge,
        traffic_class: 0,
        source,
        destination,
        tail: [0, 0],
    };
    // SAFETY: both pointers are valid, and the size is the structure's.
    let result = unsafe {
        bpf_fib_lookup(ctx.skb.skb.cast(), (&raw mut lookup).cast(), size_of::<Lookup>() as i32, 0)
    };
    if lookup.interface != bridge || lookup.destination != destination {
        return ELSEWHERE;
    }
    match result {
        SUCCESS => lookup.tail[1] >> 16,
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
