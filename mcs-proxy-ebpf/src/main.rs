//! The programs on the host side of every pod's veth, and the clock that dates their flows.
#![no_std]
#![no_main]
// `atomic_xadd` with a result: the target has no compare-and-swap, so `AtomicU64::fetch_add` is not there.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic_xadd is the only way to a fetching add on this target")]

mod affinity;
mod aside;
mod bridge;
mod collision;
mod events;
mod flow;
mod fragment;
mod hairpin;
mod hop;
mod icmp;
mod life;
mod lookup;
mod maps;
mod odd;
mod open;
mod orphan;
mod packet;
mod peer;
mod redirect;
mod reject;
mod reply;
mod rewrite;
mod roster;
mod sctp;
mod shape;
mod socket;
mod tcx;
mod verdict;
mod wire;

/// Dual, because some helpers are for GPL-compatible programs only. NUL-terminated, as the loader reads it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: a path that could panic would fail to load. The compiler asks for it all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
