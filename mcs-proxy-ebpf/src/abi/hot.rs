//! The filter that every packet pays and most packets pay alone.
//!
//! `hot` is an array of words in two halves of 4 Mi bits. A packet from a pod tests the bit of its destination in
//! the first half, where VIPs are marked; a packet to a pod tests the bit of its source in the second, where
//! backends are marked. A clear bit means that nothing of ours concerns the packet. A set bit means only that it
//! may: addresses share bits. So many bits that they seldom do: with 64 Ki VIPs one stranger in 64 is taken for one, and
//! with 256 Ki backends one in 16, and such a packet pays for looking up flows that are not there. The half of a
//! megabyte costs little: memory that no address of this node's traffic hashes to stays out of the caches.

use super::Address;

/// Which half of `hot` a packet is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From a pod: the half of the VIPs.
    FromPod,
    /// To a pod: the half of the backends.
    ToPod,
}

/// Words (of 64 bits) in one half.
pub const HOT_WORDS_PER_DIRECTION: u32 = 1 << (HOT_BITS - 6);

/// The bits in one half are 2 to this power.
const HOT_BITS: u32 = 22;

/// Words in the whole array.
pub const HOT_WORDS: u32 = 2 * HOT_WORDS_PER_DIRECTION;

/// Where an address has its bit: the index of a word in `hot`, and the mask within it.
#[inline(always)]
pub const fn hot_bit(direction: Direction, address: &Address) -> (u32, u64) {
    let [first, second] = address.words();
    // Fibonacci hashing: the product's upper bits depend on every bit of the address. Halves are folded first,
    // so that neither the constant prefix of v4-mapped addresses nor that of a v6 pod range leaves bits unused.
    let product = (first.rotate_left(29) ^ second).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bit = (product >> (u64::BITS - HOT_BITS)) as u32;
    let half = match direction {
        Direction::FromPod => 0,
        Direction::ToPod => HOT_WORDS_PER_DIRECTION,
    };
    (half + (bit >> 6), 1 << (bit & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::collections::BTreeSet;

    /// Sequential addresses, which is how clusters allot them, must spread as random ones would: of n addresses in
    /// m bits, m(1 - e^(-n/m)) bits are expected to be set.
    #[test]
    fn sequential_addresses_spread_over_the_filter() {
        let n = 500_000_u32;
        let all = f64::from(1 << HOT_BITS);
        let expected = all * (1.0 - (-f64::from(n) / all).exp());
        for make in [
            (|i| IpAddr::V4(Ipv4Addr::from_bits(0x0a0d_0000 + i))) as fn(u32) -> IpAddr,
            |i| IpAddr::V6(Ipv6Addr::from_bits((0xfd00_0010_0013_u128 << 80) + u128::from(i))),
            |i| IpAddr::V6(Ipv6Addr::from_bits((0xfd00_0010_0013_u128 << 80) + (u128::from(i) << 64))),
        ] {
            let bits: BTreeSet<_> =
                (0..n).map(|i| hot_bit(Direction::FromPod, &Address::from(make(i)))).collect();
            assert!(bits.len() as f64 > 0.97 * expected, "{} of {expected} bits", bits.len());
        }
    }

    #[test]
    fn the_directions_have_a_half_each() {
        for i in 0..10_000 {
            let address = Address::from(IpAddr::V4(Ipv4Addr::from_bits(0x0a0a_0000 + i)));
            let (vip, _) = hot_bit(Direction::FromPod, &address);
            let (backend, _) = hot_bit(Direction::ToPod, &address);
            assert!(vip < HOT_WORDS_PER_DIRECTION);
            assert!((HOT_WORDS_PER_DIRECTION..HOT_WORDS).contains(&backend));
        }
    }
}
