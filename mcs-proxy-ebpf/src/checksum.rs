//! The Internet checksum (RFC 1071) updated for a change instead of computed anew (RFC 1624).
//!
//! A *difference* is the 32-bit one's complement sum of what a header gains and loses; added to the sum behind a
//! checksum it turns the old checksum into the new one. The kernel's `bpf_l4_csum_replace` takes such a difference
//! and knows what else it must touch (`CHECKSUM_PARTIAL`, `CHECKSUM_COMPLETE`), so L4 checksums go through it; only
//! the checksum of the IPv4 header is changed by hand.

use crate::abi::Address;

/// What `new` adds to a sum in place of `old`. Right for IPv4 as well: the mapped prefix cancels out.
#[inline(always)]
pub const fn difference(old: &Address, new: &Address) -> u32 {
    let [old_first, old_second] = old.words();
    let [new_first, new_second] = new.words();
    // Eight 32-bit halves sum up in 64 bits without overflow.
    let sum = halves(!old_first) + halves(!old_second) + halves(new_first) + halves(new_second);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// The checksum after a change: RFC 1624, equation 3, `HC' = ~(~HC + difference)`. Byte order does not matter as
/// long as both come as they lie in memory.
#[inline(always)]
pub const fn update(checksum: u16, difference: u32) -> u16 {
    let sum = (!checksum as u32) + (difference & 0xffff) + (difference >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// What a 16-bit word adds to a sum in place of another.
#[inline(always)]
pub const fn word_difference(old: u16, new: u16) -> u32 {
    (!old) as u32 + new as u32
}

/// Two differences as one.
#[inline(always)]
pub const fn sum(first: u32, second: u32) -> u32 {
    let sum = first as u64 + second as u64;
    // Cannot overflow: with a carry the lower half is not all ones.
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// A sum as the checksum that makes up for it.
#[inline(always)]
pub const fn complement(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// RFC 1071, section 4.1, over bytes as they lie in memory.
    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum: u64 =
            bytes.chunks(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn bytes(address: &Address) -> Vec<u8> {
        address.words().iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn an_updated_checksum_equals_one_computed_anew() {
        // A multiplicative sequence reaches carries in every position.
        let mut state = 1_u128;
        let mut next = || {
            state = state.wrapping_mul(0x2d99_787e_5c9f_7a1d_1234_5678_9abc_def1).wrapping_add(1);
            state
        };
        for round in 0..20_000 {
            let mut address = |edge: u32| {
                Address::from(match (round % 2 == 0, next()) {
                    (true, bits) => IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32 | edge)),
                    (false, bits) => IpAddr::V6(Ipv6Addr::from_bits(bits | u128::from(edge))),
                })
            };
            let (old, new) = (address(0), address(if round % 3 == 0 { u32::MAX } else { 0 }));
            let rest = u64::from(round as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_ne_bytes();
            let before = checksum(&[&bytes(&old)[..], &rest].concat());
            let after = checksum(&[&bytes(&new)[..], &rest].concat());
            assert_eq!(update(before, difference(&old, &new)), after, "{old:?} -> {new:?}");
        }
    }
}
