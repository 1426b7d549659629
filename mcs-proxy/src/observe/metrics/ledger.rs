//! What the maps counted, by Service and source cluster: sums that only grow, although backends come and go.
//!
//! The maps count by backend and by frontend. Each is followed from the scrape that first sees it to the one at which it
//! is gone: its id keeps its count until another gets it, which the id's generation tells.

use crate::{
    dataplane::pins::{FrontendDump, Pins, PinsError},
    desired::FrontendKey,
    model::NamespacedName,
    observe::inventory::Inventory,
};
use mcs_proxy_ebpf::abi::{BackendCounters, BackendState, Liveness, ServiceCounters};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

/// Where the counts are read.
pub trait Counts {
    /// # Errors
    /// The kernel's.
    fn service(&self, service: u32) -> Result<ServiceCounters, PinsError>;
    /// # Errors
    /// The kernel's.
    fn backend(&self, backend: u32) -> Result<BackendCounters, PinsError>;
    fn state(&self, backend: u32) -> BackendState;
}

/// Whose counts a row sums up. The first rows are for those that come first; who comes when there is no row left is in
/// the one for all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// `None`: all others.
    pub service: Option<NamespacedName>,
    /// Only of rows by cluster.
    pub cluster: Option<String>,
}

/// Sums by Service and source cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterSums {
    /// New flows of the packet path.
    pub flows: u64,
    /// Connections of the socket path.
    pub connects: u64,
    pub answered: u64,
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    services: BTreeMap<u32, KnownService>,
    backends: BTreeMap<u32, KnownBackend>,
    pub by_service: Rows<ServiceCounters>,
    pub by_cluster: Rows<ClusterSums>,
}

#[derive(Debug)]
struct KnownService {
    key: FrontendKey,
    row: Arc<RowKey>,
    last: ServiceCounters,
}

#[derive(Debug)]
struct KnownBackend {
    generation: u32,
    row: Arc<RowKey>,
    last: BackendCounters,
}

/// As many rows as are allowed, and one for the rest.
#[derive(Debug)]
pub struct Rows<T> {
    most: usize,
    rows: BTreeMap<Arc<RowKey>, T>,
}

impl<T: Default> Rows<T> {
    const fn new(most: usize) -> Self {
        Self { most, rows: BTreeMap::new() }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&RowKey, &T)> {
        self.rows.iter().map(|(key, sums)| (&**key, sums))
    }

    /// The row of this name, if there is room for one more, else the one for all others.
    fn row(&mut self, key: RowKey) -> Arc<RowKey> {
        if let Some((known, _)) = self.rows.get_key_value(&key) {
            return known.clone();
        }
        let own = self.rows.keys().filter(|row| row.service.is_some()).count();
        let key = if own < self.most {
            key
        } else {
            RowKey { service: None, cluster: key.cluster.map(|_| "other".to_owned()) }
        };
        if let Some((known, _)) = self.rows.get_key_value(&key) {
            return known.clone();
        }
        let key = Arc::new(key);
        self.rows.insert(key.clone(), T::default());
        key
    }

    fn add(&mut self, row: &Arc<RowKey>, add: impl FnOnce(&mut T)) {
        if let Some(sums) = self.rows.get_mut(row) {
            add(sums);
        }
    }

    /// A row that nothing is counted for any more makes way; that of all others stays.
    fn retain(&mut self, alive: &BTreeSet<Arc<RowKey>>) {
        self.rows.retain(|row, _| row.service.is_none() || alive.contains(row));
    }
}

impl Ledger {
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            by_service: Rows::new(most),
            by_cluster: Rows::new(most),
        }
    }

    /// Adds what was counted since the last time.
    ///
    /// # Errors
    /// The kernel's. What was added stays, and the rest comes the next time.
    pub fn update(
        &mut self,
        inventory: &Inventory,
        dump: &FrontendDump,
        counts: &impl Counts,
    ) -> Result<(), PinsError> {
        self.meet(inventory, dump, counts);
        self.count_backends(counts)?;
        self.count_services(dump, counts)?;
        let alive = self.backends.values().map(|backend| backend.row.clone()).collect();
        self.by_cluster.retain(&alive);
        let alive = self.services.values().map(|service| service.row.clone()).collect();
        self.by_service.retain(&alive);
        Ok(())
    }

    /// Whatever is new is followed from now on; what has no name yet will have one the next time.
    fn meet(&mut self, inventory: &Inventory, dump: &FrontendDump, counts: &impl Counts) {
        for frontend in &dump.frontends {
            let Some(item) = inventory.get(&frontend.key) else { continue };
            let service = item.service();
            let index = frontend.header.service;
            if self.services.get(&index).is_none_or(|known| known.key != frontend.key) {
                let row = self.by_service.row(RowKey { service: Some(service.clone()), cluster: None });
                let known = KnownService { key: frontend.key, row, last: ServiceCounters::default() };
                self.services.insert(index, known);
            }
            let slots: BTreeMap<u32, SocketAddr> = frontend
                .slots
                .iter()
                .map(|slot| (slot.backend, SocketAddr::new(slot.address.to_ip(), slot.port.get())))
                .collect();
            for (id, address) in slots {
                let generation = counts.state(id).generation();
                if self.backends.get(&id).is_some_and(|known| known.generation == generation) {
                    continue;
                }
                let Some(cluster) = inventory.cluster(item, address) else { continue };
                let key = RowKey { service: Some(service.clone()), cluster: Some(cluster.to_owned()) };
                let row = self.by_cluster.row(key);
                self.backends.insert(id, KnownBackend { generation, row, last: BackendCounters::default() });
            }
        }
    }

    fn count_backends(&mut self, counts: &impl Counts) -> Result<(), PinsError> {
        let mut gone = Vec::new();
        for (&id, known) in &mut self.backends {
            let state = counts.state(id);
            if state.generation() != known.generation {
                gone.push(id);
                continue;
            }
            let now = counts.backend(id)?;
            let last = known.last;
            // It was set to zero for the next owner, who comes next.
            if (now.new_flows(), now.bytes) == (0, 0) {
                continue;
            }
            known.last = now;
            self.by_cluster.add(&known.row, |sums| {
                sums.flows += u64::from(now.flows.wrapping_sub(last.flows));
                sums.connects += u64::from(now.connects.wrapping_sub(last.connects));
                sums.answered += u64::from(now.first_replies.wrapping_sub(last.first_replies));
                sums.bytes += now.bytes.wrapping_sub(last.bytes);
            });
            if state.liveness() == Liveness::Gone && now == last {
                gone.push(id);
            }
        }
        for id in gone {
            self.backends.remove(&id);
        }
        Ok(())
    }

    fn count_services(&mut self, dump: &FrontendDump, counts: &impl Counts) -> Result<(), PinsError> {
        let keys: BTreeSet<FrontendKey> = dump.frontends.iter().map(|frontend| frontend.key).collect();
        let mut gone = Vec::new();
        for (&index, known) in &mut self.services {
            let now = counts.service(index)?;
            let last = known.last;
            if now.flows >= last.flows && now.packets_in >= last.packets_in {
                known.last = now;
                self.by_service.add(&known.row, |sums| {
                    sums.flows += now.flows - last.flows;
                    sums.packets_in += now.packets_in - last.packets_in;
                    sums.packets_out += now.packets_out.saturating_sub(last.packets_out);
                    sums.bytes_in += now.bytes_in.saturating_sub(last.bytes_in);
                    sums.bytes_out += now.bytes_out.saturating_sub(last.bytes_out);
                });
            }
            if !keys.contains(&known.key) {
                gone.push(index);
            }
        }
        for index in gone {
            self.services.remove(&index);
        }
        Ok(())
    }
}

impl Counts for Pins {
    fn service(&self, service: u32) -> Result<ServiceCounters, PinsError> {
        self.service_counters(service)
    }

    fn backend(&self, backend: u32) -> Result<BackendCounters, PinsError> {
        self.backend_counters(backend)
    }

    fn state(&self, backend: u32) -> BackendState {
        self.backend_state(backend)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
