//! Where the host would forward a packet to: its routes, rules and neighbours, asked by `bpf_fib_lookup`.
//!
//! The answer holds for a second, and for all small packets to one address that come in by one interface: it is wanted up
//! to twice a packet, and asking is dear (`tests/benches/COSTS.md`). Whoever makes a flow asks anew, and its first packet goes
//! by that answer. Of another route or another MAC address of a neighbour's, open flows hear when the daemon forgets what is
//! held here, which it does as soon as the kernel tells it; without a daemon, within the second.

use crate::{flow::ticks, maps};
use aya_ebpf::{helpers::generated::bpf_fib_lookup, programs::TcContext};
use core::ptr;
use mcs_proxy_ebpf::abi::Address;

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h) in fields that need no unions.
#[repr(C)]
pub(crate) struct Lookup {
    family: u8,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    /// 0: the length of the packet itself counts.
    length: u16,
    /// In: where the packet comes in. Out: where it would go out.
    pub(crate) interface: u32,
    traffic_class: u32,
    source: [u64; 2],
    /// Out: the gateway, if there is one.
    pub(crate) destination: [u64; 2],
    /// The last twelve bytes are MAC addresses: of the interface, and of the next hop.
    tail: [u64; 2],
}

const _: () = assert!(size_of::<Lookup>() == 64);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `BPF_FIB_LKUP_RET_SUCCESS` and `BPF_FIB_LKUP_RET_NO_NEIGH`.
pub(crate) const SUCCESS: i64 = 0;
pub(crate) const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`: of this packet alone.
const TOO_LARGE: i64 = 8;
/// Ours: nobody was asked.
const NO_ROOM: i64 = -1;

impl Lookup {
    /// A packet between two addresses of one family that comes in by `interface`.
    #[inline(always)]
    pub(crate) fn new(source: &Address, destination: &Address, protocol: u8, interface: u32) -> Self {
        let family = if source.is_v4() { AF_INET } else { AF_INET6 };
        let (source, destination) = (Self::words(source), Self::words(destination));
        Self {
            family,
            protocol,
            source_port: 0,
            destination_port: 0,
            length: 0,
            interface,
            traffic_class: 0,
            source,
            destination,
            tail: [0, 0],
        }
    }

    /// As the helper takes an address.
    #[inline(always)]
    const fn words(address: &Address) -> [u64; 2] {
        if address.is_v4() { [address.v4_raw() as u64, 0] } else { address.words() }
    }

    /// Asks, and returns what the helper does.
    #[inline(always)]
    pub(crate) fn ask(&mut self, ctx: &TcContext) -> i64 {
        // SAFETY: both pointers are valid, and the size is the structure's.
        unsafe { bpf_fib_lookup(ctx.skb.skb.cast(), (&raw mut *self).cast(), size_of::<Self>() as i32, 0) }
    }

    /// The next hop's MAC address, as its bytes lie in memory.
    #[inline(always)]
    pub(crate) const fn next_mac(&self) -> u64 {
        self.tail[1] >> 16
    }

    /// The MAC address of the interface that the packet would leave by.
    #[inline(always)]
    pub(crate) const fn own_mac(&self) -> u64 {
        self.tail[0] >> 32 | (self.tail[1] & 0xffff) << 32
    }
}

/// A larger packet asks for itself: the helper compares its length with the MTU. 576 bytes, which every host takes (RFC
/// 791), and the Ethernet header: no interface of a pod's is narrower, though RFC 791 allows links of 68.
const SMALL: u32 = 576 + 14;

/// Where packets to an address go that come in by an interface.
#[repr(C)]
pub(crate) struct HopKey {
    destination: Address,
    interface: u32,
    pad: u32,
}

/// The host's last answer: there is a way, and the neighbour is known.
#[repr(C)]
pub(crate) struct Hop {
    /// By which interface.
    pub(crate) interface: u32,
    /// Ticks when the host was asked.
    asked: u32,
    /// The next hop's MAC address, as its bytes lie in memory, and [`DIRECT`].
    next: u64,
    /// The MAC address of the interface.
    pub(crate) own_mac: u64,
}

/// The destination itself is the next hop. No MAC address has more than 48 bits.
const DIRECT: u64 = 1 << 48;

impl Hop {
    #[inline(always)]
    pub(crate) const fn next_mac(&self) -> u64 {
        self.next & (DIRECT - 1)
    }

    #[inline(always)]
    pub(crate) const fn is_direct(&self) -> bool {
        self.next & DIRECT != 0
    }
}

/// A MAC address as it is written to a packet.
#[inline(always)]
pub(crate) const fn halves(mac: u64) -> [u16; 3] {
    [mac as u16, (mac >> 16) as u16, (mac >> 32) as u16]
}

/// Memory of this CPU for a question: on the stack there is no room beside a packet.
#[repr(C)]
pub(crate) struct Asking {
    key: HopKey,
    lookup: Lookup,
    hop: Hop,
}

/// Where the packet would go on to if it came in by `interface`; `None` if the host would not forward it, or does not
/// know the neighbour.
#[inline(always)]
pub(crate) fn find(
    ctx: &TcContext,
    source: &Address,
    destination: &Address,
    protocol: u8,
    interface: u32,
) -> Option<&'static Hop> {
    let asking = maps::asking()?;
    asking.key = HopKey { destination: *destination, interface, pad: 0 };
    if ctx.len() <= SMALL
        && let Some(pointer) = maps::hop(&asking.key)
    {
        // SAFETY: the entry is memory of the map until this program ends; each field is right by itself.
        let hop = unsafe { &*pointer };
        if ticks().wrapping_sub(hop.asked) < maps::ticks_per_second() {
            return Some(hop);
        }
    }
    if ask(ctx, source, protocol) != SUCCESS {
        return None;
    }
    // SAFETY: as above.
    maps::hop(&asking.key).map(|pointer| unsafe { &*pointer })
}

/// What the host says now, whatever it said before: what the helper returns, and what it has filled in.
#[inline(always)]
pub(crate) fn ask_anew(
    ctx: &TcContext,
    source: &Address,
    destination: &Address,
    protocol: u8,
    interface: u32,
) -> Option<(i64, &'static Lookup)> {
    let asking = maps::asking()?;
    asking.key = HopKey { destination: *destination, interface, pad: 0 };
    let answer = ask(ctx, source, protocol);
    Some((answer, &asking.lookup))
}

/// Asks the host what `asking.key` says, and notes the answer, if it is a way; if not, what it said before holds no more.
#[inline(never)]
fn ask(ctx: &TcContext, source: &Address, protocol: u8) -> i64 {
    let Some(Asking { key, lookup, hop }) = maps::asking() else { return NO_ROOM };
    *lookup = Lookup::new(source, &key.destination, protocol, key.interface);
    let answer = lookup.ask(ctx);
    if answer != SUCCESS {
        if answer != TOO_LARGE
            && let Some(pointer) = maps::hop(key)
        {
            // SAFETY: as in `find`.
            unsafe { (*pointer).asked = ticks().wrapping_sub(maps::ticks_per_second()) };
        }
        return answer;
    }
    let wanted = Lookup::words(&key.destination);
    let direct = if lookup.destination == wanted { DIRECT } else { 0 };
    *hop = Hop {
        interface: lookup.interface,
        asked: ticks(),
        next: lookup.next_mac() | direct,
        own_mac: lookup.own_mac(),
    };
    if let Some(pointer) = maps::hop(key) {
        // In place: an update through the map takes another element.
        // SAFETY: as in `find`.
        unsafe { ptr::copy_nonoverlapping(hop, pointer, 1) };
    } else {
        // Without an element whoever wants the answer asks again.
        let _is_noted = maps::insert_hop(key, hop);
    }
    answer
}

/// Whether an answer of [`ask_anew`] leads to this address itself, without a gateway.
#[inline(always)]
pub(crate) fn leads_to(lookup: &Lookup, destination: &Address) -> bool {
    lookup.destination == Lookup::words(destination)
}
