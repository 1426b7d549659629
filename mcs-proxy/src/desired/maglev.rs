//! Maglev's table: "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4.
//!
//! The frontend's slots are the table, and the kernel takes the entry `hash(flow) mod size`. Every node makes the same
//! table of the same endpoints, in whatever order they come, so that every node sends a flow to the same one; and an
//! endpoint more or less leaves nearly all other entries where they are.
//!
//! Two things differ from the paper, and both halve what a removal moves. An endpoint that finds an entry taken has
//! lost its turn, and stops at its share: who gets an entry then depends on how early it stands in the permutations,
//! not on how many others happened to be taken before. And the permutations are not arithmetic progressions: two that
//! have the same step run after one another, and when the first one goes, the second moves altogether.

use mcs_proxy_ebpf::{abi::Address, select::mix};
use std::{collections::BTreeMap, net::SocketAddr};

/// Primes, as the permutations need: the first for up to 40 endpoints, the second for more, so that each has a hundred
/// entries or more (up to 655 endpoints). Shares are even to one entry.
/// The removal of one of n moves at most 2/n of all entries up to 200 endpoints; of 300 it moves 2.3/n.
///
/// An entry is a slot of 24 bytes: 98 kB and 1.6 MB a frontend. The default `--max-slots` has room for 128 frontends
/// of the first size, or 8 of the second. There are no more sizes than these, because between two sizes most entries
/// move: that happens once, between 40 and 41 endpoints.
const SIZES: [usize; 2] = [4093, 65_521];
const ENTRIES_EACH: usize = 100;

/// Entries of a table for so many endpoints. A single one needs no choice.
fn size(endpoints: usize) -> usize {
    match endpoints {
        0 | 1 => endpoints,
        n if n * ENTRIES_EACH <= SIZES[0] => SIZES[0],
        _ => SIZES[1],
    }
}

/// The table of these slots. An address that is there several times gets as many times the entries.
pub(super) fn table(slots: &[SocketAddr]) -> Vec<SocketAddr> {
    // In the order of the addresses, whatever theirs is.
    let mut weights: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for slot in slots {
        *weights.entry(*slot).or_default() += 1;
    }
    let size = size(weights.len());
    let heaviest = weights.values().copied().max().unwrap_or_default();
    let mut walks = walks(&weights, size);
    let mut entries: Vec<Option<SocketAddr>> = vec![None; size];
    while !walks.is_empty() {
        for walk in &mut walks {
            // The heaviest has a turn in every round, the others in proportion.
            walk.credit += walk.weight;
            if walk.credit < heaviest {
                continue;
            }
            walk.credit -= heaviest;
            if let Some(entry @ None) = entries.get_mut(walk.step()) {
                *entry = Some(walk.address);
                walk.share -= 1;
            }
        }
        walks.retain(|walk| walk.share > 0);
    }
    entries.into_iter().flatten().collect()
}

/// One for each endpoint, with shares that add up to the size.
fn walks(weights: &BTreeMap<SocketAddr, usize>, size: usize) -> Vec<Walk> {
    let total: usize = weights.values().sum();
    let mut before = 0;
    let mut walks = Vec::with_capacity(weights.len());
    for (&address, &weight) in weights {
        let share = size * (before + weight) / total - size * before / total;
        before += weight;
        walks.push(Walk::new(address, weight, share, size as u64));
    }
    walks.retain(|walk| walk.share > 0);
    walks
}

/// An endpoint's own permutation of the entries: the order in which it would like to have them.
struct Walk {
    address: SocketAddr,
    weight: usize,
    credit: usize,
    /// Entries it is still to get.
    share: usize,
    offset: u64,
    factor: u64,
    position: u64,
    size: u64,
}

/// The power that a position is raised to is 2 to so many, and one more: 17. It has no divisor in common with any of
/// the sizes less one, so that no two numbers below the size have the same power.
const SQUARINGS: u32 = 4;
#[cfg(test)]
const POWER: usize = (1 << SQUARINGS) + 1;

impl Walk {
    fn new(address: SocketAddr, weight: usize, share: usize, size: u64) -> Self {
        let [first, second] = Address::from(address.ip()).words();
        let hash = |seed| mix([seed, first, second, address.port().into()]);
        let factor = hash(2) % size.saturating_sub(1).max(1) + 1;
        Self { address, weight, credit: 0, share, offset: hash(1) % size, factor, position: 0, size }
    }

    fn step(&mut self) -> usize {
        let square = |number: u64| number * number % self.size;
        let power = (0..SQUARINGS).fold(self.position, |power, _| square(power)) * self.position;
        self.position = (self.position + 1) % self.size;
        ((self.offset + self.factor * (power % self.size)) % self.size) as usize
    }
}

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
