//! The choice of a slot: the kernel only indexes, the order and repetition of slots is all the policy there is.

use crate::abi::{Address, Algorithm, Port};

/// The slot (0-based) that a new flow gets, or `None` if there is none.
///
/// `cursor` is called for round robin only and must return each value once, over all CPUs; `random` and `hash` are
/// called for the algorithm they serve only.
#[inline(always)]
pub fn select(
    algorithm: Algorithm,
    count: u32,
    cursor: impl FnOnce() -> Option<u64>,
    random: impl FnOnce() -> u32,
    hash: impl FnOnce() -> u32,
) -> Option<u32> {
    if count == 0 {
        return None;
    }
    match algorithm {
        Algorithm::RoundRobin => cursor().map(|value| (value % u64::from(count)) as u32),
        Algorithm::Random => Some(random() % count),
        Algorithm::Maglev => Some(hash() % count),
    }
}

/// What a flow is to Maglev: the same number on every node, whatever it has seen before.
#[inline(always)]
pub const fn flow_hash(
    client: &Address,
    client_port: Port,
    vip: &Address,
    vip_port: Port,
    protocol: u8,
) -> u32 {
    let [client_first, client_second] = client.words();
    let [vip_first, vip_second] = vip.words();
    let rest = client_port.raw() as u64 | ((vip_port.raw() as u64) << 16) | ((protocol as u64) << 32);
    (mix([client_first, client_second, vip_first, vip_second, rest]) >> 32) as u32
}

/// Every bit of the result depends on every bit of the words and on their order. No cipher: whoever may choose the
/// words may choose the result.
///
/// One multiplication a word, folded so that upper bits reach lower ones, and MurmurHash3's finalizer.
#[inline(always)]
pub const fn mix<const N: usize>(words: [u64; N]) -> u64 {
    let mut state = N as u64;
    let mut index = 0;
    while index < N {
        state = (state ^ words[index]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 32;
        index += 1;
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_takes_turns_wherever_the_cursor_starts() {
        for start in [0, 1, 28, u64::from(u32::MAX)] {
            let mut turns = [0; 2];
            for i in 0..29 {
                let slot = select(Algorithm::RoundRobin, 2, || Some(start + i), || 0, || 0).unwrap();
                turns[slot as usize] += 1;
            }
            turns.sort_unstable();
            assert_eq!(turns, [14, 15]);
        }
    }

    #[test]
    fn no_slots_no_choice_and_no_turn() {
        let nothing = select(Algorithm::RoundRobin, 0, || panic!("a turn was taken"), || 0, || 0);
        assert_eq!(nothing, None);
    }

    #[test]
    fn random_and_maglev_stay_in_range() {
        for value in [0, 1, 2, 3, u32::MAX] {
            assert!(select(Algorithm::Random, 3, || None, || value, || 0).unwrap() < 3);
            assert!(select(Algorithm::Maglev, 3, || None, || 0, || value).unwrap() < 3);
        }
    }

    /// χ² of so many counts, as standard deviations from what chance makes of it.
    fn deviations(counts: &[u32]) -> f64 {
        let bins = counts.len() as f64;
        let expected = f64::from(counts.iter().sum::<u32>()) / bins;
        let chi_square: f64 =
            counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        (chi_square - (bins - 1.0)) / (2.0 * (bins - 1.0)).sqrt()
    }

    /// What real clients differ in: a few bits of a port or of an address.
    #[test]
    fn flows_that_hardly_differ_are_spread_evenly() {
        use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
        let v4 = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a0c_0000 + n));
        let v6 = |n: u32| IpAddr::V6(Ipv6Addr::from_bits((0xfd00_0010_0012 << 80) + u128::from(n)));
        type Client<'a> = &'a dyn Fn(u32) -> (IpAddr, u16);
        let clients: [(&str, Client<'_>); 4] = [
            ("ports, IPv4", &|n| (v4(9), n as u16)),
            ("even ports, IPv6", &|n| (v6(9 + (n >> 15)), (n as u16) << 1)),
            ("addresses, IPv4", &|n| (v4(n), 40_000)),
            ("addresses, IPv6", &|n| (v6(n << 8), 40_000)),
        ];
        for bins in [2, 7, 64, 251, 4093] {
            for (what, client) in clients {
                let mut counts = vec![0; bins as usize];
                for n in 0..65_536 {
                    let (address, port) = client(n);
                    let vip = if address.is_ipv4() { v4(0x1_0000) } else { v6(0x1_0000) };
                    let hash = flow_hash(&address.into(), Port::new(port), &vip.into(), Port::new(80), 6);
                    counts[(hash % bins) as usize] += 1;
                }
                let deviations = deviations(&counts);
                assert!(deviations < 5.0, "{what}, {bins} bins: {deviations} standard deviations");
            }
        }
    }

    #[test]
    fn one_bit_changes_half_of_the_bits() {
        let words = [1, 0xffff_0000, 3, 0x0a0c_0009_ffff_0000, 5];
        for bit in 0..320 {
            let mut other = words;
            other[bit / 64] ^= 1 << (bit % 64);
            let changed = (mix(words) ^ mix(other)).count_ones();
            assert!((10..=54).contains(&changed), "bit {bit} changes {changed}");
        }
        assert_ne!(mix([1, 2]), mix([2, 1]));
        assert_ne!(mix([0]), mix([0, 0]));
    }
}
