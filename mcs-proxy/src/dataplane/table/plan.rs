//! From what should be to operations.

use super::{Backend, CapacityError, Entry, Extent, Fill, Probe, Table, Target};
use crate::{
    dataplane::{Operation, Transaction, service_key},
    desired::{Desired, Frontend, FrontendKey},
    model::rejection,
};
use mcs_proxy_ebpf::abi::{
    Address, Algorithm, BackendState, Direction, Element, Header, Liveness, Port, ServiceKey, Slot,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

/// What to do, and what can't be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub transaction: Transaction,
    pub rejected: Vec<Rejected>,
    /// Addresses that were left out, as no pod can have them. What decides about endpoints has refused such long
    /// before; that one is here means that it erred.
    pub refused: BTreeSet<SocketAddr>,
}

/// A frontend that did not fit. If it was there before, it goes on as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub key: FrontendKey,
    pub error: CapacityError,
}

impl Table {
    /// Enters or changes `upserts` and takes out `removals`; a frontend in both is entered. What is already as it
    /// should be costs no operation.
    ///
    /// Removals come last, so that insertions need not wait for them, unless room is short.
    pub fn plan(&mut self, upserts: &Desired, removals: &BTreeSet<FrontendKey>) -> Plan {
        let mut refused = BTreeSet::new();
        let wanted: BTreeMap<ServiceKey, (&FrontendKey, Wanted)> = upserts
            .iter()
            .map(|(key, frontend)| (service_key(key), (key, Wanted::new(frontend, &mut refused))))
            .collect();
        let removals = removals.iter().map(service_key).filter(|key| !wanted.contains_key(key)).collect();
        let mut planner = Planner { table: self, transaction: Transaction::new(), removals };
        let given_up: BTreeSet<Address> = planner.removals.iter().map(|key| key.vip).collect();
        planner.unsay_whole(given_up.iter().copied());
        let shared = wanted.iter().filter(|(_, (_, wanted))| !wanted.owns_vip).map(|(key, _)| key.vip);
        planner.unsay_whole(shared);
        planner.table.settle_strays(&mut planner.transaction);
        let mut rejected = Vec::new();
        for (key, (name, wanted)) in &wanted {
            match planner.upsert(*key, wanted) {
                Ok(()) => planner.table.whole.note_fit(key),
                Err(error) => {
                    rejected.push(Rejected { key: **name, error });
                    if !planner.table.entries.contains_key(key) {
                        planner.table.whole.note_unfit(*key);
                    }
                }
            }
        }
        planner.remove_all();
        let touched: BTreeSet<Address> = wanted.keys().map(|key| key.vip).chain(given_up).collect();
        for vip in touched {
            planner.table.judge_whole(vip, &mut planner.transaction);
        }
        Plan { transaction: planner.transaction, rejected, refused }
    }
}

/// A frontend in the terms of the maps.
struct Wanted {
    algorithm: Algorithm,
    affinity_seconds: u32,
    packets_only: bool,
    owns_vip: bool,
    slots: Arc<[SocketAddr]>,
    probe: Option<Probe>,
    live: BTreeSet<Target>,
    /// Not in the slots.
    serving: BTreeSet<Target>,
}

impl Wanted {
    fn new(frontend: &Frontend, refused: &mut BTreeSet<SocketAddr>) -> Self {
        let mut target = |address: &SocketAddr| {
            if rejection(address.ip()).is_some() || address.port() == 0 {
                refused.insert(*address);
                return None;
            }
            Some((Address::from(address.ip()), Port::new(address.port())))
        };
        let live: BTreeSet<Target> = frontend.slots.iter().filter_map(&mut target).collect();
        let probe = frontend.probe.as_ref().and_then(|probe| {
            let target = target(&probe.address).filter(|target| !live.contains(target))?;
            Some(Probe { target, number: probe.number })
        });
        let serving = frontend.serving.iter().filter_map(target).chain(probe.map(|probe| probe.target));
        let serving = serving.filter(|target| !live.contains(target)).collect();
        let mut slots = Arc::clone(&frontend.slots);
        if slots.iter().any(|address| refused.contains(address)) {
            slots = slots.iter().filter(|address| !refused.contains(address)).copied().collect();
        }
        let &Frontend { algorithm, affinity_seconds, packets_only, owns_vip, .. } = frontend;
        Self { algorithm, affinity_seconds, packets_only, owns_vip, slots, probe, live, serving }
    }

    fn is_extent_of(&self, entry: &Entry) -> bool {
        entry.algorithm == self.algorithm
            && entry.affinity_seconds == self.affinity_seconds
            && entry.packets_only == self.packets_only
            && entry.slots == self.slots
            && entry.probe == self.probe
    }

    /// `None`: to be gone.
    fn liveness(&self, target: &Target) -> Option<Liveness> {
        if self.live.contains(target) {
            return Some(Liveness::Live);
        }
        self.serving.contains(target).then_some(Liveness::Serving)
    }
}

/// What an upsert takes from the free lists: all of it, or the upsert is rejected.
#[derive(Default)]
struct Room {
    frontend: Option<u32>,
    extent: Option<Extent>,
    backends: Vec<u32>,
}

struct Planner<'a> {
    table: &'a mut Table,
    transaction: Transaction,
    /// Still to be carried out.
    removals: BTreeSet<ServiceKey>,
}

impl Planner<'_> {
    fn unsay_whole(&mut self, vips: impl IntoIterator<Item = Address>) {
        for vip in vips {
            self.table.unsay_whole(vip, &mut self.transaction);
        }
    }

    fn upsert(&mut self, key: ServiceKey, wanted: &Wanted) -> Result<(), CapacityError> {
        let known = self.table.entries.get(&key);
        let rewrite = known.is_none_or(|entry| !wanted.is_extent_of(entry));
        let is_new = known.is_none();
        // A backend that has never been in the slots has no flows to serve, so it needs no id until it is.
        let probed = wanted.probe.map(|probe| probe.target);
        let newcomers: Vec<Target> = wanted
            .live
            .iter()
            .chain(&probed)
            .filter(|&target| known.is_none_or(|entry| !entry.backends.contains_key(target)))
            .copied()
            .collect();
        if is_new && self.table.limbo.removed {
            self.table.grace(&mut self.transaction);
        }
        let elements = 1 + wanted.slots.len() + usize::from(wanted.probe.is_some());
        let len = rewrite.then(|| u32::try_from(elements).unwrap_or(u32::MAX));
        let room = self.room(is_new, len, newcomers.len())?;

        let mut entry = match (self.table.entries.remove(&key), room.frontend) {
            (Some(entry), _) => entry,
            (None, frontend) => {
                let service = frontend.unwrap_or_default();
                self.transaction.push(Operation::ResetService { service });
                if !self.table.hot.is_held(Direction::FromPod, key.vip) {
                    self.transaction.push(Operation::SetVip { vip: key.vip, flags: Some(0) });
                }
                self.transaction.extend(self.table.hot.hold(Direction::FromPod, key.vip));
                Box::new(Entry {
                    frontend: service,
                    extent: Extent { first: 0, len: 0 },
                    algorithm: wanted.algorithm,
                    affinity_seconds: wanted.affinity_seconds,
                    packets_only: wanted.packets_only,
                    owns_vip: wanted.owns_vip,
                    slots: Arc::default(),
                    probe: None,
                    backends: BTreeMap::new(),
                })
            }
        };
        entry.owns_vip = wanted.owns_vip;
        self.welcome(&mut entry, &newcomers, &room.backends);
        self.set_states(&mut entry, wanted, Some(Liveness::Live));
        if let Some(extent) = room.extent {
            self.write(&mut entry, wanted, extent);
        }
        if is_new {
            self.transaction.push(Operation::InsertService { key, frontend: entry.frontend });
        }
        self.set_states(&mut entry, wanted, Some(Liveness::Serving));
        self.set_states(&mut entry, wanted, None);
        self.table.entries.insert(key, entry);
        Ok(())
    }

    /// Enters backends that the frontend has not had, or not since they were gone.
    fn welcome(&mut self, entry: &mut Entry, newcomers: &[Target], ids: &[u32]) {
        for (&target, &id) in newcomers.iter().zip(ids) {
            let generation = self.table.generation(id).wrapping_add(1);
            if let Some(slot) = self.table.generations.get_mut(id as usize) {
                *slot = generation;
            }
            let state = BackendState::new(generation, Liveness::Live);
            // The first owner of an id finds its counters at zero.
            if generation != 1 {
                self.transaction.push(Operation::ResetBackend { backend: id });
            }
            self.transaction.push(Operation::SetBackendState { backend: id, state });
            self.transaction.extend(self.table.hot.hold(Direction::ToPod, target.0));
            entry.backends.insert(target, Backend { id, liveness: Liveness::Live });
        }
    }

    /// Brings those backends to a state that are to have it and don't yet; `None`: gone.
    fn set_states(&mut self, entry: &mut Entry, wanted: &Wanted, liveness: Option<Liveness>) {
        let state = liveness.unwrap_or(Liveness::Gone);
        for (target, backend) in &mut entry.backends {
            if wanted.liveness(target) == liveness && backend.liveness != state {
                backend.liveness = state;
                let state = BackendState::new(self.table.generation(backend.id), state);
                self.transaction.push(Operation::SetBackendState { backend: backend.id, state });
            }
        }
        if liveness.is_none() {
            entry.backends.retain(|target, backend| {
                if wanted.liveness(target).is_none() {
                    self.table.hot.let_go(Direction::ToPod, target.0);
                    self.table.limbo.backends.push(backend.id);
                }
                wanted.liveness(target).is_some()
            });
        }
    }

    fn write(&mut self, entry: &mut Entry, wanted: &Wanted, extent: Extent) {
        let header = Header {
            count: extent.len - 1 - u32::from(wanted.probe.is_some()),
            service: entry.frontend,
            frontend: entry.frontend,
            algorithm: wanted.algorithm,
            affinity_seconds: wanted.affinity_seconds,
            packets_only: wanted.packets_only,
            probe: wanted.probe.is_some(),
        };
        let targets =
            wanted.slots.iter().map(|address| (Address::from(address.ip()), Port::new(address.port())));
        let slots = targets.chain(wanted.probe.map(|probe| probe.target)).map(|target| {
            let backend = entry.backends.get(&target).map_or(0, |backend| backend.id);
            Element::slot(&Slot { address: target.0, port: target.1, backend })
        });
        let elements = std::iter::once(Element::header(&header)).chain(slots).collect();
        self.transaction.push(Operation::WriteExtent { first: extent.first, elements });
        self.transaction.push(Operation::Publish { frontend: entry.frontend, extent: extent.first });
        let old = std::mem::replace(&mut entry.extent, extent);
        if old.len > 0 {
            self.table.limbo.extents.push(old);
        }
        entry.algorithm = wanted.algorithm;
        entry.affinity_seconds = wanted.affinity_seconds;
        entry.packets_only = wanted.packets_only;
        entry.slots = Arc::clone(&wanted.slots);
        entry.probe = wanted.probe;
    }

    /// Finds room, by waiting for what was let go of if there is no other way.
    fn room(&mut self, frontend: bool, len: Option<u32>, backends: usize) -> Result<Room, CapacityError> {
        let error = match self.take(frontend, len, backends) {
            Ok(room) => return Ok(room),
            Err(error) => error,
        };
        if error.is_final() || (self.removals.is_empty() && self.table.limbo.is_empty()) {
            return Err(error);
        }
        self.remove_all();
        self.table.grace(&mut self.transaction);
        self.take(frontend, len, backends)
    }

    fn take(&mut self, frontend: bool, len: Option<u32>, backends: usize) -> Result<Room, CapacityError> {
        let mut room = Room::default();
        if frontend && self.table.frontends.available() == 0 {
            let Fill { capacity, in_use } = self.table.usage().frontends;
            return Err(CapacityError::Frontends { capacity, in_use });
        }
        if self.table.backends.available() < backends {
            let Fill { capacity, in_use } = self.table.usage().backends;
            let needed = u32::try_from(backends).unwrap_or(u32::MAX);
            return Err(CapacityError::Backends { capacity, in_use, needed });
        }
        if let Some(needed) = len {
            room.extent = self.table.extents.allocate(needed);
            if room.extent.is_none() {
                let Fill { capacity, in_use } = self.table.usage().elements;
                let longest = self.table.extents.longest();
                return Err(CapacityError::Slots { capacity, in_use, needed, longest });
            }
        }
        room.backends = self.table.backends.take(backends).unwrap_or_default();
        if frontend {
            room.frontend = self.table.frontends.take(1).unwrap_or_default().pop();
        }
        Ok(room)
    }

    fn remove_all(&mut self) {
        for key in std::mem::take(&mut self.removals) {
            self.table.whole.note_fit(&key);
            let Some(entry) = self.table.entries.remove(&key) else { continue };
            self.transaction.push(Operation::RemoveService { key });
            self.table.limbo.removed = true;
            self.table.hot.let_go(Direction::FromPod, key.vip);
            if !self.table.hot.is_held(Direction::FromPod, key.vip) {
                self.transaction.push(Operation::SetVip { vip: key.vip, flags: None });
            }
            for (target, backend) in entry.backends {
                let state = BackendState::new(self.table.generation(backend.id), Liveness::Gone);
                self.transaction.push(Operation::SetBackendState { backend: backend.id, state });
                self.table.hot.let_go(Direction::ToPod, target.0);
                self.table.limbo.backends.push(backend.id);
            }
            self.table.limbo.frontends.push((entry.frontend, true));
            self.table.limbo.extents.push(entry.extent);
        }
    }
}

impl CapacityError {
    /// Whether more would be needed than the map has in all.
    fn is_final(&self) -> bool {
        match *self {
            Self::Frontends { capacity, .. } => capacity == 0,
            Self::Slots { capacity, needed, .. } | Self::Backends { capacity, needed, .. } => {
                needed > capacity
            }
        }
    }
}
