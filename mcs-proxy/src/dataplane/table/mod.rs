//! What the maps hold, and how they get to hold something else.
//!
//! A [`Table`] is the mirror of the maps in the memory of their only writer. [`Table::plan`] compares it with what
//! should be, changes itself and says what to do, in an order whose every prefix is fit for the programs that read
//! meanwhile. If carrying it out fails, the mirror is wrong and a new one is made by [`Table::recover`].
//!
//! Nothing that a program may still hold on to is used again before a grace period is over: extents that were
//! replaced, indices and ids of what was removed, and the elements of the hash `services`, which the kernel reuses
//! at once, so that no key is inserted after one was removed. All of this waits in [`Limbo`], and the grace period
//! is put off until something is needed from there, or until [`Table::reclaim`] is called at an idle moment.

mod allocate;
mod capacity;
mod hot;
mod plan;
mod recover;
#[cfg(test)]
mod tests;
mod whole;

pub use capacity::{CapacityError, Demand, Fill, Shortage, Usage};
pub use hot::{HotAddress, LingerMark};
pub use plan::{Plan, Rejected};

use super::{Operation, Transaction, frontend_key, service_key};
use crate::desired::{Desired, FrontendKey};
use allocate::{Extent, Extents, Ids};
use hot::Hot;
use mcs_proxy_ebpf::abi::{Address, Algorithm, BackendState, Liveness, MapSizes, Port, ServiceKey};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use whole::Whole;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Table {
    sizes: Sizes,
    entries: BTreeMap<ServiceKey, Box<Entry>>,
    extents: Extents,
    frontends: Ids,
    backends: Ids,
    /// By backend id; the next owner gets the next one.
    generations: Vec<u32>,
    hot: Hot,
    limbo: Limbo,
    strays: Strays,
    whole: Whole,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    frontends: u32,
    elements: u32,
    backends: u32,
}

/// A frontend that `services` leads to.
#[derive(Clone, Debug)]
struct Entry {
    /// Index in `frontends`, and service id.
    frontend: u32,
    extent: Extent,
    algorithm: Algorithm,
    affinity_seconds: u32,
    packets_only: bool,
    /// As in [`Frontend`](crate::desired::Frontend).
    owns_vip: bool,
    /// As in [`Frontend`](crate::desired::Frontend), whose they are.
    slots: Arc<[SocketAddr]>,
    probe: Option<Probe>,
    /// Those in the slots, and those that only serve the flows they have.
    backends: BTreeMap<Target, Backend>,
}

/// A backend's address. Within a frontend it has one id, however many slots.
type Target = (Address, Port);

/// The slot behind the others, which one new flow alone may have; a later one has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    target: Target,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backend {
    id: u32,
    liveness: Liveness,
}

/// Let go of, but programs that began before may still use it.
#[derive(Clone, Debug, Default)]
struct Limbo {
    extents: Vec<Extent>,
    /// Frontends that nothing leads to any more; `true`: they still point to their extent.
    frontends: Vec<(u32, bool)>,
    backends: Vec<u32>,
    /// A key was removed from `services`, so that none may be inserted.
    removed: bool,
}

/// What was found at a restart and makes no sense: to be put right with the first transaction.
#[derive(Clone, Debug, Default)]
struct Strays {
    services: BTreeSet<ServiceKey>,
    backends: BTreeSet<u32>,
    /// Bits that should be set.
    hot: Vec<Operation>,
    /// Addresses of no frontend, and those that a frontend has and the map has not.
    vips: Vec<Operation>,
}

impl Table {
    /// The mirror of empty maps.
    #[must_use]
    pub fn new(sizes: &MapSizes) -> Self {
        let &MapSizes { frontends, elements, backend_ids: backends, .. } = sizes;
        Self {
            sizes: Sizes { frontends, elements, backends },
            entries: BTreeMap::new(),
            extents: Extents::new(elements),
            frontends: Ids::new(0, frontends),
            backends: Ids::new(1, backends),
            generations: vec![0; backends as usize],
            hot: Hot::new(),
            limbo: Limbo::default(),
            strays: Strays::default(),
            whole: Whole::default(),
        }
    }

    /// Makes the maps hold `desired` and nothing else. What is already so is left alone.
    pub fn sync(&mut self, desired: &Desired) -> Plan {
        let removals = self.unwanted(desired);
        self.plan(desired, &removals)
    }

    /// Takes out what is not in `desired`.
    pub fn keep_only(&mut self, desired: &Desired) -> Plan {
        let removals = self.unwanted(desired);
        self.plan(&Desired::new(), &removals)
    }

    fn unwanted(&mut self, desired: &Desired) -> BTreeSet<FrontendKey> {
        let wanted: BTreeSet<ServiceKey> = desired.keys().map(service_key).collect();
        self.whole.keep_unfit(&wanted);
        self.entries.keys().filter(|key| !wanted.contains(key)).filter_map(frontend_key).collect()
    }

    /// Waits for what was let go of, so that the next transaction need not. Empty if there is nothing to wait for.
    pub fn reclaim(&mut self) -> Transaction {
        let mut transaction = Transaction::new();
        self.settle_strays(&mut transaction);
        if self.wants_reclaim() {
            self.grace(&mut transaction);
        }
        transaction
    }

    /// Whether anything waits for a grace period.
    #[must_use]
    pub fn wants_reclaim(&self) -> bool {
        !self.limbo.is_empty() || self.hot.is_leaving() || self.whole.is_pending()
    }

    /// As [`Self::reclaim`], after a grace period that began when the last transaction had been carried out.
    pub fn reclaim_after_grace(&mut self) -> Transaction {
        let mut transaction = vec![Operation::GracePeriodOver];
        self.free_limbo(&mut transaction);
        transaction
    }

    /// Whether a scan of the flow maps could free bits of `hot`. [`Self::reclaim`] first.
    #[must_use]
    pub fn wants_scan(&self) -> bool {
        self.hot.wants_scan()
    }

    /// Addresses whose bits are set for the sake of flows alone, and have had their grace period.
    pub fn linger_candidates(&self) -> impl Iterator<Item = HotAddress> + '_ {
        self.hot.candidates()
    }

    /// To be taken before the scan whose result goes to [`Self::release_hot`].
    #[must_use]
    pub fn linger_mark(&self) -> LingerMark {
        self.hot.mark()
    }

    /// Clears the bits of `hot` that nobody needs any more. `referenced`: every VIP and backend address that the
    /// flow maps refer to, by a complete scan that began after `mark` was taken.
    pub fn release_hot(&mut self, mark: &LingerMark, referenced: &BTreeSet<HotAddress>) -> Transaction {
        self.hot.release(mark, referenced)
    }

    /// What is in `services` and leads somewhere.
    pub fn keys(&self) -> impl Iterator<Item = FrontendKey> + '_ {
        self.entries.keys().filter_map(frontend_key)
    }

    /// Index of a frontend, which is also its service id.
    #[must_use]
    pub fn frontend_index(&self, key: &FrontendKey) -> Option<u32> {
        self.entries.get(&service_key(key)).map(|entry| entry.frontend)
    }

    /// Ids and states of a frontend's backends, whether in its slots or not.
    pub fn backends(&self, key: &FrontendKey) -> impl Iterator<Item = (SocketAddr, u32, BackendState)> + '_ {
        let backends = self.entries.get(&service_key(key)).map(|entry| &entry.backends);
        backends.into_iter().flatten().map(|(&(address, port), backend)| {
            let state = BackendState::new(self.generation(backend.id), backend.liveness);
            (SocketAddr::new(address.to_ip(), port.get()), backend.id, state)
        })
    }

    /// Entries of `services` that were found at a restart and lead nowhere; the first transaction removes them.
    pub fn stray_services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.strays.services.iter()
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        let Sizes { frontends, elements, backends } = self.sizes;
        let fill = |capacity: u32, available: usize| {
            let available = u32::try_from(available).unwrap_or(u32::MAX);
            Fill { in_use: capacity.saturating_sub(available), capacity }
        };
        // What awaits a grace period is free once it is needed: after a restart that is all that is not used.
        let waiting: u32 = self.limbo.extents.iter().map(|extent| extent.len).sum();
        // Element 0 and id 0 can't be used, so they are no capacity.
        Usage {
            frontends: fill(frontends, self.frontends.available() + self.limbo.frontends.len()),
            elements: fill(elements.saturating_sub(1), (self.extents.available() + waiting) as usize),
            backends: fill(backends.saturating_sub(1), self.backends.available() + self.limbo.backends.len()),
        }
    }

    /// Everything in limbo becomes free.
    fn grace(&mut self, transaction: &mut Transaction) {
        transaction.push(Operation::GracePeriod);
        self.free_limbo(transaction);
    }

    fn free_limbo(&mut self, transaction: &mut Transaction) {
        let Limbo { extents, frontends, backends, removed: _ } = std::mem::take(&mut self.limbo);
        for (frontend, published) in frontends {
            if published {
                transaction.push(Operation::Publish { frontend, extent: 0 });
            }
            self.frontends.release(frontend);
        }
        extents.into_iter().for_each(|extent| self.extents.release(extent));
        backends.into_iter().for_each(|id| self.backends.release(id));
        self.hot.grace_over();
        self.say_whole(transaction);
    }

    fn settle_strays(&mut self, transaction: &mut Transaction) {
        let Strays { services, backends, hot, vips } = std::mem::take(&mut self.strays);
        transaction.extend(hot);
        for key in services {
            self.unsay_whole(key.vip, transaction);
            transaction.push(Operation::RemoveService { key });
            self.limbo.removed = true;
            self.judge_whole(key.vip, transaction);
        }
        transaction.extend(vips);
        for id in backends {
            let state = BackendState::new(self.generation(id), Liveness::Gone);
            transaction.push(Operation::SetBackendState { backend: id, state });
            self.limbo.backends.push(id);
        }
    }

    fn generation(&self, id: u32) -> u32 {
        self.generations.get(id as usize).copied().unwrap_or_default()
    }
}

impl Limbo {
    fn is_empty(&self) -> bool {
        let Self { extents, frontends, backends, removed } = self;
        extents.is_empty() && frontends.is_empty() && backends.is_empty() && !removed
    }
}
