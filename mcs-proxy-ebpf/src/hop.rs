//! Where the host would forward a packet to: its routes, rules and neighbours, asked by `bpf_fib_lookup`.

use aya_ebpf::{helpers::generated::bpf_fib_lookup, programs::TcContext};
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

impl Lookup {
    /// A packet between two addresses of one family that comes in by `interface`.
    #[inline(always)]
    pub(crate) fn new(source: &Address, destination: &Address, protocol: u8, interface: u32) -> Self {
        let (family, source, destination) = if source.is_v4() {
            (AF_INET, [u64::from(source.v4_raw()), 0], [u64::from(destination.v4_raw()), 0])
        } else {
            (AF_INET6, source.words(), destination.words())
        };
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
