//! What stands before a transport header: IPv4 options, IPv6 extension headers, and what makes a fragment.
//!
//! Where the plain path has constants this has a walk, and copies by helpers, which take any offset.

use crate::{
    aside::{forget, words},
    packet::{ETHERNET, IPV4, IPV6, Network, plain_transport},
};
use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use mcs_proxy_ebpf::abi::{Protocol, Verdict};

/// IPv6 extension headers that are walked, and how many bytes they may have together; with more of either a packet
/// passes. Bounds for the verifier, and far beyond what is in use.
const HEADERS: usize = 8;
const HEADER_BYTES: u64 = 256;

/// The only IPv4 options that matter here: with a source route the destination in the header is not the one that
/// the transport's checksum covers.
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const SCTP: u8 = Protocol::Sctp.number();

/// Where a packet's transport header is and what else stands before it, in one word: from the lowest bit on 16 of
/// offset, 8 of protocol, the kind of fragment, and in the upper half the identification.
#[derive(Clone, Copy)]
pub(crate) struct Shape(u64);

/// No fragment, or one that is the whole datagram (RFC 6946).
const WHOLE: u64 = 1 << 24;
const FIRST: u64 = 2 << 24;
const LATER: u64 = 3 << 24;
const KIND: u64 = 3 << 24;
const OFFSET: u64 = 0xffff;

/// What a walk returns in place of a shape; neither has a kind.
const UNSUPPORTED: u64 = 0;
const MALFORMED: u64 = 1;

impl Shape {
    pub(crate) const NONE: Self = Self(UNSUPPORTED);

    #[inline(always)]
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// The first fragment of several.
    #[inline(always)]
    pub(crate) const fn is_first(self) -> bool {
        self.0 & KIND == FIRST
    }

    /// A fragment without a transport header.
    #[inline(always)]
    pub(crate) const fn is_later(self) -> bool {
        self.0 & KIND == LATER
    }

    /// Offset of the transport header.
    #[inline(always)]
    pub(crate) const fn transport(self) -> usize {
        (self.0 & 0x1ff) as usize
    }

    #[inline(always)]
    pub(crate) const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// A fragment's, as it lies in memory.
    #[inline(always)]
    pub(crate) const fn identification(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[inline(always)]
const fn word(kind: u64, transport: u32, protocol: u8, identification: u32) -> u64 {
    transport as u64 | ((protocol as u64) << 16) | kind | ((identification as u64) << 32)
}

/// Finds the transport header, if there is one that could be translated.
#[inline(always)]
pub(crate) fn find(ctx: &TcContext, network: &Network) -> Result<Shape, Verdict> {
    let found = if network.plain {
        word(WHOLE, plain_transport(network.v4) as u32, network.protocol, 0)
    } else if network.v4 {
        walk_v4(ctx.skb.skb)
    } else {
        walk_v6(ctx.skb.skb)
    };
    match forget(found) {
        UNSUPPORTED => Err(Verdict::Unsupported),
        MALFORMED => Err(Verdict::Malformed),
        found => Ok(Shape(found)),
    }
}

/// A function of its own, as is [`walk_v6`]: its stack is needed only while it runs.
#[inline(never)]
fn walk_v4(skb: *mut __sk_buff) -> u64 {
    let Some(&[first, second, third, ..]) = words(skb, ETHERNET as u32, 12) else { return MALFORMED };
    if first as u8 >> 4 != 4 || first & 15 < 5 {
        return MALFORMED;
    }
    let transport = ETHERNET as u32 + 4 * (first & 15);
    let mut option = (ETHERNET + IPV4) as u32;
    // 40 bytes at most, and each option has at least one.
    for _ in 0..40 {
        option = forget(u64::from(option)) as u32;
        if option >= transport {
            break;
        }
        let Some(&[bytes, ..]) = words(skb, option, 2) else { return MALFORMED };
        let length = (bytes >> 8) as u8;
        match bytes as u8 {
            // The end of the list: the rest is padding.
            0 => break,
            1 => option += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return UNSUPPORTED,
            _ if length < 2 => return MALFORMED,
            _ => option += u32::from(length),
        }
    }
    if option > transport {
        return MALFORMED;
    }
    let (identification, fragment) = (second & 0xffff, u16::from_be((second >> 16) as u16));
    let kind = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => WHOLE,
        (0, _) => FIRST,
        _ => LATER,
    };
    word(kind, transport, (third >> 8) as u8, identification)
}

#[inline(never)]
fn walk_v6(skb: *mut __sk_buff) -> u64 {
    let Some(&[version, rest, ..]) = words(skb, ETHERNET as u32, 8) else { return MALFORMED };
    if version as u8 >> 4 != 6 {
        return MALFORMED;
    }
    let mut next = (rest >> 16) as u8;
    let first = (ETHERNET + IPV6) as u64;
    // The shape so far, without a protocol: the offset of the header that is next, and what a fragment header said.
    let mut shape = WHOLE | first;
    for _ in 0..=HEADERS {
        shape = forget(shape);
        let offset = shape & OFFSET;
        if offset > first + HEADER_BYTES {
            return UNSUPPORTED;
        }
        match next {
            TCP | UDP | SCTP => return shape | (u64::from(next) << 16),
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => {}
            _ => return UNSUPPORTED,
        }
        let Some(&[start, identification, ..]) = words(skb, offset as u32, 8) else { return MALFORMED };
        if next == FRAGMENT {
            let place = u16::from_be((start >> 16) as u16);
            if shape & KIND != WHOLE {
                return MALFORMED;
            }
            if place & 0xfff8 != 0 {
                // What follows is data, whatever the next header says.
                return word(LATER, offset as u32 + 8, 0, identification);
            }
            let kind = if place & 1 != 0 { FIRST } else { WHOLE };
            shape = word(kind, offset as u32 + 8, 0, identification);
        } else {
            // Only the IPv6 header itself may be followed by hop-by-hop options (RFC 8200, 4.1).
            if next == HOP_BY_HOP && offset != first {
                return MALFORMED;
            }
            // With segments left the destination in the header is not the one that the checksum covers.
            if next == ROUTING && start >> 24 != 0 {
                return UNSUPPORTED;
            }
            shape += 8 + 8 * u64::from((start >> 8) as u8);
        }
        next = start as u8;
    }
    UNSUPPORTED
}
