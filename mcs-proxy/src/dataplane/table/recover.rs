//! The mirror of maps that an earlier daemon has filled.

use super::{Backend, Entry, Extent, Hot, Ids, Limbo, Probe, Sizes, Strays, Table, Target, Whole, allocate};
use crate::dataplane::{Dump, FlowRef, Operation, frontend_key};
use mcs_proxy_ebpf::abi::{
    Address, BackendState, Direction, Element, Header, Liveness, ServiceKey, Slot, VipFlags,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

impl Table {
    /// Adopts what the maps hold: frontends with their indices, extents and cursors, backends with their ids and
    /// generations. A plan for the same frontends changes nothing then.
    ///
    /// Whatever is not in use goes through limbo first, because an earlier daemon may have let go of it just before
    /// it ended. What leads nowhere (a crash can't bring that about, a meddler can) is removed by the first
    /// transaction. A backend that only serves flows is known from those flows.
    #[must_use]
    pub fn recover(dump: &Dump) -> Self {
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let sizes = Sizes {
            frontends: len(dump.frontends.len()),
            elements: len(dump.backends.len()),
            backends: len(dump.backend_state.len()),
        };
        let mut finder =
            Finder { dump, frontends: BTreeSet::new(), extents: BTreeMap::new(), ids: BTreeSet::new() };
        let mut entries = BTreeMap::new();
        let mut strays = Strays::default();
        for (key, &frontend) in &dump.services {
            match finder.entry(key, frontend) {
                Some(entry) => drop(entries.insert(*key, Box::new(entry))),
                None => drop(strays.services.insert(*key)),
            }
        }
        finder.adopt_serving(&mut entries);
        let ids = (1..).zip(dump.backend_state.iter().skip(1)).filter(|(id, _)| !finder.ids.contains(id));
        let (vacant, stray): (Vec<_>, Vec<_>) =
            ids.partition(|(_, state)| state.liveness() == Liveness::Gone);
        strays.backends = stray.into_iter().map(|(id, _)| id).collect();

        let limbo = Limbo {
            extents: allocate::gaps(entries.values().map(|entry| entry.extent), sizes.elements),
            frontends: (0..)
                .zip(&dump.frontends)
                .filter(|(index, _)| !finder.frontends.contains(index))
                .map(|(index, &word)| (index, word != 0))
                .collect(),
            backends: vacant.into_iter().map(|(id, _)| id).collect(),
            removed: true,
        };
        let mut table = Self {
            sizes,
            entries,
            extents: allocate::Extents::new(0),
            frontends: Ids::exhausted(sizes.frontends),
            backends: Ids::exhausted(sizes.backends),
            generations: dump.backend_state.iter().map(|state| state.generation()).collect(),
            hot: Hot::inherit(&dump.hot),
            limbo,
            strays,
            whole: Whole::inherit(&dump.vips),
        };
        table.recover_hot(&dump.flows);
        table.recover_vips(&dump.vips);
        table
    }

    fn recover_vips(&mut self, found: &BTreeMap<Address, VipFlags>) {
        for (key, entry) in &mut self.entries {
            entry.owns_vip = self.whole.is_said(&key.vip);
        }
        let owned: BTreeSet<Address> = self.entries.keys().map(|key| key.vip).collect();
        let set = |flags| move |&vip: &Address| Operation::SetVip { vip, flags };
        self.strays.vips.extend(found.keys().filter(|vip| !owned.contains(vip)).map(set(None)));
        self.strays.vips.extend(owned.iter().filter(|vip| !found.contains_key(vip)).map(set(Some(0))));
    }

    /// Has packets from pods to these addresses looked at, for good.
    pub fn reserve(&mut self, addresses: &[Address]) {
        for address in addresses {
            self.strays.hot.extend(self.hot.hold(Direction::FromPod, *address));
        }
    }

    fn recover_hot(&mut self, flows: &BTreeSet<FlowRef>) {
        for (key, entry) in &self.entries {
            self.strays.hot.extend(self.hot.hold(Direction::FromPod, key.vip));
            for (address, _) in entry.backends.keys() {
                self.strays.hot.extend(self.hot.hold(Direction::ToPod, *address));
            }
        }
        for flow in flows {
            self.hot.linger((Direction::FromPod, flow.vip));
            self.hot.linger((Direction::ToPod, flow.backend));
        }
    }
}

/// Reads a dump, and keeps what belongs to a frontend already from belonging to another.
struct Finder<'a> {
    dump: &'a Dump,
    frontends: BTreeSet<u32>,
    /// Length by first element.
    extents: BTreeMap<u32, u32>,
    ids: BTreeSet<u32>,
}

impl Finder<'_> {
    /// `None` if the key leads nowhere, or to what another one has.
    fn entry(&mut self, key: &ServiceKey, frontend: u32) -> Option<Entry> {
        frontend_key(key)?;
        let first = u32::try_from(*self.dump.frontends.get(frontend as usize)?).ok()?;
        if first == 0 || self.frontends.contains(&frontend) {
            return None;
        }
        let (header, slots) = self.extent(first, frontend)?;
        let len = header.count.checked_add(1)?.checked_add(u32::from(header.probe))?;
        let extent = Extent { first, len };
        let probe = if header.probe { Some(self.probe(extent)?) } else { None };
        let mut backends: BTreeMap<Target, Backend> = BTreeMap::new();
        for slot in &slots {
            let state = self.state(slot.backend)?;
            let found = Backend { id: slot.backend, liveness: state.liveness() };
            let known = backends.insert((slot.address, slot.port), found);
            if self.ids.contains(&slot.backend) || known.is_some_and(|known| known != found) {
                return None;
            }
        }
        if let Some(slot) = &probe
            && let Some(state) = self.state(slot.backend)
            && state.liveness() != Liveness::Gone
            && !self.ids.contains(&slot.backend)
        {
            let found = Backend { id: slot.backend, liveness: state.liveness() };
            backends.entry((slot.address, slot.port)).or_insert(found);
        }
        let ids: BTreeSet<u32> = backends.values().map(|backend| backend.id).collect();
        if ids.len() < backends.len() || self.overlaps(extent) {
            return None;
        }
        self.frontends.insert(frontend);
        self.extents.insert(extent.first, extent.len);
        self.ids.extend(ids);
        let Header { algorithm, affinity_seconds, packets_only, probe: _, count: _, service: _, frontend: _ } =
            header;
        let slots = slots.iter().map(|slot| SocketAddr::new(slot.address.to_ip(), slot.port.get())).collect();
        Some(Entry {
            frontend,
            extent,
            algorithm,
            affinity_seconds,
            packets_only,
            owns_vip: false,
            slots,
            // Its number is none that is wanted: the first plan writes the extent anew.
            probe: probe.map(|slot| Probe { target: (slot.address, slot.port), number: 0 }),
            backends,
        })
    }

    /// Without a backend, if a flow has taken it.
    fn probe(&self, extent: Extent) -> Option<Slot> {
        self.dump.backends.get((extent.first + extent.len - 1) as usize)?.as_slot()
    }

    fn extent(&self, first: u32, frontend: u32) -> Option<(Header, Vec<Slot>)> {
        let header = self.dump.backends.get(first as usize)?.as_header()?;
        if header.frontend != frontend || header.service != frontend {
            return None;
        }
        let start = (first as usize).checked_add(1)?;
        let elements = self.dump.backends.get(start..start.checked_add(header.count as usize)?)?;
        let slots = elements.iter().map(Element::as_slot).collect::<Option<_>>()?;
        Some((header, slots))
    }

    fn overlaps(&self, extent: Extent) -> bool {
        let before = self.extents.range(..extent.first + extent.len).next_back();
        before.is_some_and(|(&first, &len)| first + len > extent.first)
    }

    /// Gives backends that are out of the slots back to their frontends, as the flows that use them tell.
    fn adopt_serving(&mut self, entries: &mut BTreeMap<ServiceKey, Box<Entry>>) {
        let mut by_frontend: BTreeMap<u32, &mut Entry> =
            entries.values_mut().map(|entry| (entry.frontend, &mut **entry)).collect();
        for flow in &self.dump.flows {
            let &FlowRef { vip: _, service, backend, backend_port, backend_id: id, generation } = flow;
            let Some(entry) = by_frontend.get_mut(&service) else { continue };
            let Some(state) = self.state(id).filter(|state| state.keeps(generation)) else { continue };
            let target = (backend, backend_port);
            if !entry.backends.contains_key(&target) && self.ids.insert(id) {
                entry.backends.insert(target, Backend { id, liveness: state.liveness() });
            }
        }
    }

    fn state(&self, id: u32) -> Option<BackendState> {
        if id == 0 { None } else { self.dump.backend_state.get(id as usize).copied() }
    }
}
