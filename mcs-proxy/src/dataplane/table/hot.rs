//! Which bits of the filter are set, and for whom.
//!
//! A bit is set while an address that maps to it is held by a frontend or a backend. When nobody holds the address
//! any more, flows may still need the bit: a connection outlives its backend's slot and its frontend. So the address
//! lingers until a scan of the flow maps, begun after a grace period, has shown that no flow refers to it.

use crate::dataplane::Operation;
use mcs_proxy_ebpf::abi::{Address, Direction, HOT_WORDS, hot_bit};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// An address, and the way of the packets that it stops at the filter.
pub type HotAddress = (Direction, Address);

/// A point in time before which lingering addresses had their grace period; taken before a scan starts. It is good
/// for the table that gave it only: one that was recovered meanwhile counts anew.
#[derive(Clone, Debug)]
pub struct LingerMark {
    epoch: u64,
    table: Arc<()>,
}

#[derive(Clone, Debug)]
pub(super) struct Hot {
    words: Vec<u64>,
    /// How many addresses have a bit, whatever their state; one without any is clear, unless inherited.
    sharers: Sharers,
    /// How many frontends, or backends, hold an address: by direction, as there may be a hundred thousand and each key
    /// would have it.
    held: [BTreeMap<Address, u32>; 2],
    /// Let go of; the grace period is still to come.
    leaving: BTreeSet<HotAddress>,
    /// Grace periods that were over when the address began to linger.
    lingering: BTreeMap<HotAddress, u64>,
    /// Bits that were found set at a restart, and nobody knows why.
    inherited: BTreeSet<(u32, u64)>,
    /// Grace periods so far.
    epoch: u64,
    /// Tells this table's marks from another's.
    identity: Arc<()>,
}

/// Of a direction in [`Hot::held`].
const fn place(direction: Direction) -> usize {
    match direction {
        Direction::FromPod => 0,
        Direction::ToPod => 1,
    }
}

impl Hot {
    pub(super) fn new() -> Self {
        Self {
            words: vec![0; HOT_WORDS as usize],
            sharers: Sharers::new(),
            held: Default::default(),
            leaving: BTreeSet::new(),
            lingering: BTreeMap::new(),
            inherited: BTreeSet::new(),
            epoch: 0,
            identity: Arc::default(),
        }
    }

    /// Takes over what is in the map. To be followed by [`Self::hold`] and [`Self::linger`] for all that is known.
    pub(super) fn inherit(words: &[u64]) -> Self {
        let mut hot = Self::new();
        for (index, (own, &found)) in (0..).zip(hot.words.iter_mut().zip(words)) {
            *own = found;
            // Most words are empty.
            let mut rest = found;
            while rest != 0 {
                let bit = 1 << rest.trailing_zeros();
                hot.inherited.insert((index, bit));
                rest &= !bit;
            }
        }
        hot
    }

    /// The operation is needed before packets of this address are to be looked at, if any.
    pub(super) fn hold(&mut self, direction: Direction, address: Address) -> Option<Operation> {
        let key = (direction, address);
        let held = &mut self.held[place(direction)];
        if let Some(holders) = held.get_mut(&address) {
            *holders += 1;
            return None;
        }
        held.insert(address, 1);
        if self.leaving.remove(&key) || self.lingering.remove(&key).is_some() {
            return None;
        }
        self.share(key)
    }

    /// Whether any frontend, or backend, has the address.
    pub(super) fn is_held(&self, direction: Direction, address: Address) -> bool {
        self.held[place(direction)].contains_key(&address)
    }

    pub(super) fn let_go(&mut self, direction: Direction, address: Address) {
        let key = (direction, address);
        let held = &mut self.held[place(direction)];
        let Some(holders) = held.get_mut(&address) else { return };
        *holders -= 1;
        if *holders == 0 {
            held.remove(&address);
            self.leaving.insert(key);
        }
    }

    /// At a restart: flows refer to this address. If its bit is clear, they have done without.
    pub(super) fn linger(&mut self, key: HotAddress) {
        let (word, bit) = hot_bit(key.0, &key.1);
        let is_set = self.words.get(word as usize).is_some_and(|bits| bits & bit != 0);
        if is_set && !self.is_held(key.0, key.1) && self.leaving.insert(key) {
            self.sharers.join((word, bit));
        }
    }

    pub(super) fn grace_over(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.lingering.extend(std::mem::take(&mut self.leaving).into_iter().map(|key| (key, epoch)));
    }

    pub(super) fn mark(&self) -> LingerMark {
        LingerMark { epoch: self.epoch, table: Arc::clone(&self.identity) }
    }

    pub(super) fn candidates(&self) -> impl Iterator<Item = HotAddress> + '_ {
        self.lingering.keys().copied()
    }

    pub(super) fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    pub(super) fn wants_scan(&self) -> bool {
        !self.lingering.is_empty() || !self.inherited.is_empty()
    }

    /// Clears the bits that nobody needs, by a complete scan that began at `mark`.
    pub(super) fn release(&mut self, mark: &LingerMark, referenced: &BTreeSet<HotAddress>) -> Vec<Operation> {
        if !Arc::ptr_eq(&mark.table, &self.identity) {
            return Vec::new();
        }
        let mut freed = BTreeSet::new();
        let done: Vec<HotAddress> = self
            .lingering
            .iter()
            .filter(|&(key, &since)| since <= mark.epoch && !referenced.contains(key))
            .map(|(key, _)| *key)
            .collect();
        for key in done {
            self.lingering.remove(&key);
            let bit = hot_bit(key.0, &key.1);
            if self.sharers.leave(bit) {
                freed.insert(bit);
            }
        }
        // What was inherited has had its grace period when one is over that this daemon has waited for.
        if mark.epoch > 0 {
            let needed: BTreeSet<_> =
                referenced.iter().map(|(direction, ip)| hot_bit(*direction, ip)).collect();
            freed.extend(self.inherited.difference(&needed));
            self.inherited.retain(|bit| needed.contains(bit));
        }
        let mut words = BTreeSet::new();
        for (word, bit) in freed {
            if !self.sharers.has((word, bit)) && !self.inherited.contains(&(word, bit)) {
                self.words[word as usize] &= !bit;
                words.insert(word);
            }
        }
        words.into_iter().map(|word| Operation::SetHot { word, bits: self.words[word as usize] }).collect()
    }

    fn share(&mut self, (direction, address): HotAddress) -> Option<Operation> {
        let (word, bit) = hot_bit(direction, &address);
        self.sharers.join((word, bit));
        let bits = self.words.get_mut(word as usize)?;
        if *bits & bit != 0 {
            return None;
        }
        *bits |= bit;
        Some(Operation::SetHot { word, bits: *bits })
    }
}

/// How many addresses have a bit. There are so many bits that nearly all have one or none.
#[derive(Clone, Debug)]
struct Sharers {
    /// Bits that an address has.
    any: Vec<u64>,
    /// How many more have it.
    further: BTreeMap<(u32, u64), u32>,
}

impl Sharers {
    fn new() -> Self {
        Self { any: vec![0; HOT_WORDS as usize], further: BTreeMap::new() }
    }

    fn join(&mut self, (word, bit): (u32, u64)) {
        let Some(any) = self.any.get_mut(word as usize) else { return };
        if *any & bit == 0 {
            *any |= bit;
        } else {
            *self.further.entry((word, bit)).or_default() += 1;
        }
    }

    /// Whether it was the last one.
    fn leave(&mut self, (word, bit): (u32, u64)) -> bool {
        if let Some(further) = self.further.get_mut(&(word, bit)) {
            *further -= 1;
            if *further == 0 {
                self.further.remove(&(word, bit));
            }
            return false;
        }
        let was_there = self.has((word, bit));
        if let Some(any) = self.any.get_mut(word as usize) {
            *any &= !bit;
        }
        was_there
    }

    fn has(&self, (word, bit): (u32, u64)) -> bool {
        self.any.get(word as usize).is_some_and(|any| any & bit != 0)
    }
}
