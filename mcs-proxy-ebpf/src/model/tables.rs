use crate::abi::{
    Address, Algorithm, BackendState, Direction, Flow, HOT_WORDS, Port, REJECTS_PER_TICK, Reply, ServiceKey,
    Slot, Tuple, hot_bit,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the maps hold.
#[derive(Clone, Debug)]
pub struct Tables {
    pub limits: Limits,
    /// Words of the filter.
    pub hot: Vec<u64>,
    pub frontends: BTreeMap<ServiceKey, Frontend>,
    /// Addresses that some frontend has.
    pub vips: BTreeSet<Address>,
    /// Those of them whose every port is ours.
    pub whole: BTreeSet<Address>,
    pub backend_state: BTreeMap<u32, BackendState>,
    /// Turns taken, by service id.
    pub cursors: BTreeMap<u32, u64>,
    pub established: Place,
    pub transient: Place,
    /// By service id and client.
    pub affinity: BTreeMap<(u32, Address), Remembered>,
    /// Established flows by interface. Signed, as user space may set it too low.
    pub interface_flows: BTreeMap<u32, i64>,
    /// The last tick in which an interface was given answers, and how many.
    pub rejects: BTreeMap<u32, (u32, u32)>,
}

/// What the loader sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of `flows` and of `replies`.
    pub flows: usize,
    pub flows_per_interface: u32,
    pub ticks_per_second: u32,
    /// By which addresses a pod that calls itself seems to be called: over IPv4, over IPv6.
    pub hairpin: [Address; 2],
}

/// A pair of flow maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub flows: BTreeMap<Tuple, Flow>,
    pub replies: BTreeMap<Tuple, Reply>,
}

/// What a frontend points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub service: u32,
    pub algorithm: Algorithm,
    /// 0: no affinity.
    pub affinity_seconds: u32,
    pub slots: Vec<Slot>,
    /// One more, for one new flow alone; gone with it.
    pub probe: Option<Slot>,
}

/// Where a client's last flow went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub backend: Address,
    pub port: Port,
    pub backend_id: u32,
    pub generation: u32,
    /// Ticks at the last new flow.
    pub last_used: u32,
}

impl Tables {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            hot: vec![0; HOT_WORDS as usize],
            frontends: BTreeMap::new(),
            vips: BTreeSet::new(),
            whole: BTreeSet::new(),
            backend_state: BTreeMap::new(),
            cursors: BTreeMap::new(),
            established: Place::default(),
            transient: Place::default(),
            affinity: BTreeMap::new(),
            interface_flows: BTreeMap::new(),
            rejects: BTreeMap::new(),
        }
    }

    /// Sets the address's bit in the filter.
    pub fn mark(&mut self, direction: Direction, address: &Address) {
        let (word, mask) = hot_bit(direction, address);
        self.hot[word as usize] |= mask;
    }

    pub(super) fn is_hot(&self, direction: Direction, address: &Address) -> bool {
        let (word, mask) = hot_bit(direction, address);
        self.hot[word as usize] & mask != 0
    }

    pub(super) fn state_of(&self, backend: u32) -> BackendState {
        self.backend_state.get(&backend).copied().unwrap_or_default()
    }

    /// As packets find it: what is established hides what is left of it in the transient pair.
    pub(super) fn flow(&self, key: &Tuple) -> Option<&Flow> {
        self.established.flows.get(key).or_else(|| self.transient.flows.get(key))
    }

    /// As [`Self::flow`].
    pub(super) fn reply(&self, key: &Tuple) -> Option<&Reply> {
        self.established.replies.get(key).or_else(|| self.transient.replies.get(key))
    }

    /// By which address of the family a pod that calls itself seems to be called.
    pub(super) fn hairpin(&self, v4: bool) -> Address {
        self.limits.hairpin[usize::from(!v4)]
    }

    pub(super) fn take_turn(&mut self, service: u32) -> u64 {
        let cursor = self.cursors.entry(service).or_default();
        let turn = *cursor;
        *cursor += 1;
        turn
    }

    pub(super) fn take_share(&mut self, interface: u32) -> bool {
        let limit = i64::from(self.limits.flows_per_interface);
        let count = self.interface_flows.entry(interface).or_default();
        let is_free = *count < limit;
        *count += i64::from(is_free);
        is_free
    }

    pub(super) fn give_share(&mut self, interface: u32) {
        *self.interface_flows.entry(interface).or_default() -= 1;
    }

    pub(super) fn take_reject(&mut self, interface: u32, now: u32) -> bool {
        let (tick, count) = self.rejects.entry(interface).or_insert((now, 0));
        if *tick != now {
            (*tick, *count) = (now, 0);
        }
        *count += 1;
        *count <= REJECTS_PER_TICK
    }
}
