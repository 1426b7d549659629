//! Maps without a kernel: they keep real state, refuse what would break a program that reads meanwhile, and fail
//! when told to.

use super::{Dataplane, DataplaneError, Dump, FlowRef, Operation};
use mcs_proxy_ebpf::abi::{
    Address, BackendState, Direction, Element, FrontendWord, HOT_WORDS, Header, Liveness, MapName, MapSizes,
    ServiceKey, Slot, VIP_WHOLE, VipFlags, hot_bit,
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
};

/// Holds maps in memory and checks every operation against the rules of the [`Operation`]s.
#[derive(Clone, Debug)]
pub struct FakeDataplane {
    services: BTreeMap<ServiceKey, u32>,
    vips: BTreeMap<Address, VipFlags>,
    frontends: Vec<FrontendWord>,
    backends: Vec<Element>,
    backend_state: Vec<BackendState>,
    hot: Vec<u64>,
    flows: BTreeSet<FlowRef>,
    since_grace: SinceGrace,
    /// Written, but not yet published: length by first element.
    unpublished: BTreeMap<u32, u32>,
    was_reset: BTreeSet<u32>,
    fail_at: Option<usize>,
    /// Dumps that fail from now on.
    failing_dumps: Cell<u32>,
    done: usize,
}

/// What programs that began before may still use.
#[derive(Clone, Debug, Default)]
struct SinceGrace {
    removed: bool,
    frontends: BTreeSet<u32>,
    /// VIPs with a key that a program may not have found.
    inserted: BTreeSet<Address>,
    /// Length by first element.
    extents: BTreeMap<u32, u32>,
    backends: BTreeSet<u32>,
}

/// What a program sees that looks a frontend up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub frontend: u32,
    pub extent: u32,
    pub header: Header,
    pub slots: Vec<Slot>,
}

impl FakeDataplane {
    #[must_use]
    pub fn new(sizes: &MapSizes) -> Self {
        Self {
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            frontends: vec![0; sizes.frontends as usize],
            backends: vec![Element::default(); sizes.elements as usize],
            backend_state: vec![BackendState::default(); sizes.backend_ids as usize],
            hot: vec![0; HOT_WORDS as usize],
            flows: BTreeSet::new(),
            since_grace: SinceGrace::default(),
            unpublished: BTreeMap::new(),
            was_reset: BTreeSet::new(),
            fail_at: None,
            failing_dumps: Cell::new(0),
            done: 0,
        }
    }

    /// Operations carried out so far.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.done
    }

    /// The `n`th operation from now (0: the next one) fails, and does nothing.
    pub fn fail_at(&mut self, n: usize) {
        self.fail_at = Some(self.done + n);
    }

    /// So many dumps fail from now on.
    pub fn fail_dumps(&mut self, number: u32) {
        self.failing_dumps.set(number);
    }

    /// What the flow maps refer to: shows up in dumps, and must keep its bits of `hot`.
    pub fn set_flows(&mut self, flows: BTreeSet<FlowRef>) {
        self.flows = flows;
    }

    #[must_use]
    pub fn state(&self, backend: u32) -> BackendState {
        self.backend_state.get(backend as usize).copied().unwrap_or_default()
    }

    /// Whether packets of this address get past the filter.
    #[must_use]
    pub fn is_hot(&self, direction: Direction, address: &Address) -> bool {
        let (word, bit) = hot_bit(direction, address);
        self.hot.get(word as usize).is_some_and(|bits| bits & bit != 0)
    }

    /// As the programs look a frontend up. `Err` is what they would count as corrupt.
    pub fn lookup(&self, key: &ServiceKey) -> Result<Option<View>, String> {
        let Some(&frontend) = self.services.get(key) else { return Ok(None) };
        let word = self.frontends.get(frontend as usize).copied().unwrap_or_default();
        let extent = u32::try_from(word).map_err(|error| format!("frontend {frontend}: {error}"))?;
        let (header, slots) = self.extent(extent).map_err(|error| format!("frontend {frontend}: {error}"))?;
        if header.frontend != frontend || header.service != frontend {
            return Err(format!("frontend {frontend} points to {header:?}"));
        }
        for slot in &slots {
            if self.state(slot.backend).liveness() != Liveness::Live {
                return Err(format!("frontend {frontend}: {slot:?} is {:?}", self.state(slot.backend)));
            }
            if !self.is_hot(Direction::ToPod, &slot.address) {
                return Err(format!("frontend {frontend}: replies from {:?} are filtered", slot.address));
            }
        }
        if header.probe {
            let probe = self.backends.get((extent + 1 + header.count) as usize).and_then(Element::as_slot);
            let probe = probe.ok_or(format!("frontend {frontend}: no slot for the probe"))?;
            let is_fit = self.state(probe.backend).liveness() == Liveness::Serving
                && self.is_hot(Direction::ToPod, &probe.address);
            // For a moment it is as any that comes to be live, or ceases to be.
            if !is_fit && self.state(probe.backend).liveness() != Liveness::Live {
                return Err(format!("frontend {frontend}: {probe:?} is {:?}", self.state(probe.backend)));
            }
        }
        if !self.is_hot(Direction::FromPod, &key.vip) {
            return Err(format!("packets to {:?} are filtered", key.vip));
        }
        Ok(Some(View { frontend, extent, header, slots }))
    }

    /// The addresses that answer echo requests.
    #[must_use]
    pub fn vips(&self) -> &BTreeMap<Address, VipFlags> {
        &self.vips
    }

    /// Whether calls of ports that no frontend has are refused there.
    #[must_use]
    pub fn is_whole(&self, vip: &Address) -> bool {
        self.vips.get(vip).is_some_and(|flags| flags & VIP_WHOLE != 0)
    }

    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// For tests that damage what the maps hold.
    pub fn damage(&mut self) -> (&mut BTreeMap<ServiceKey, u32>, &mut [FrontendWord], &mut [Element]) {
        (&mut self.services, &mut self.frontends, &mut self.backends)
    }

    fn extent(&self, first: u32) -> Result<(Header, Vec<Slot>), String> {
        let element = self.backends.get(first as usize).filter(|_| first > 0);
        let header = element.and_then(Element::as_header).ok_or(format!("no header at element {first}"))?;
        let range = first as usize + 1..first as usize + 1 + header.count as usize;
        let slots = self.backends.get(range).ok_or("slots out of range")?;
        let slots = slots.iter().map(Element::as_slot).collect::<Option<_>>().ok_or("not a slot")?;
        Ok((header, slots))
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), String> {
        match operation {
            Operation::WriteExtent { first, elements } => self.write_extent(*first, elements),
            Operation::Publish { frontend, extent } => self.publish(*frontend, *extent),
            Operation::InsertService { key, frontend } => self.insert_service(*key, *frontend),
            Operation::RemoveService { key } => self.remove_service(key),
            Operation::SetVip { vip, flags } => {
                if let Some(flags) = flags {
                    rule(
                        *flags & VIP_WHOLE == 0 || !self.since_grace.inserted.contains(vip),
                        "a program may not have found what has just been entered, and would refuse it",
                    )?;
                    self.vips.insert(*vip, *flags);
                } else {
                    rule(!self.services.keys().any(|key| key.vip == *vip), "a frontend has the address")?;
                    self.vips.remove(vip);
                }
                Ok(())
            }
            Operation::SetBackendState { backend, state } => self.set_backend_state(*backend, *state),
            Operation::SetHot { word, bits } => self.set_hot(*word, *bits),
            Operation::ResetService { service } => {
                rule(!self.services.values().any(|used| used == service), "the service is in use")?;
                rule(!self.since_grace.frontends.contains(service), "the service may be in use still")
            }
            Operation::ResetBackend { backend } => {
                rule(self.state(*backend).liveness() == Liveness::Gone, "the backend is in use")?;
                rule(!self.since_grace.backends.contains(backend), "the backend may be in use still")?;
                self.was_reset.insert(*backend);
                Ok(())
            }
            Operation::GracePeriod | Operation::GracePeriodOver => {
                self.since_grace = SinceGrace::default();
                // No plan waits between writing and publishing: what is left was given up.
                self.unpublished.clear();
                Ok(())
            }
        }
    }

    fn write_extent(&mut self, first: u32, elements: &[Element]) -> Result<(), String> {
        let len = u32::try_from(elements.len()).map_err(|error| error.to_string())?;
        rule(first > 0 && len > 0, "element 0 stands for nothing")?;
        let end = first.checked_add(len).ok_or("out of range")?;
        let header = elements.first().and_then(Element::as_header).ok_or("no header")?;
        rule(length(&header) == len, "the header counts wrongly")?;
        let published = self.frontends.iter().filter(|&&word| word != 0).map(|&word| {
            let first = u32::try_from(word).unwrap_or_default();
            (first, self.extent(first).map_or(1, |(header, _)| length(&header)))
        });
        let graced =
            self.since_grace.extents.iter().chain(&self.unpublished).map(|(&first, &len)| (first, len));
        for (other, len) in published.chain(graced) {
            rule(end <= other || other + len <= first, "the elements may be in use")?;
        }
        let room = self.backends.get_mut(first as usize..end as usize).ok_or("out of range")?;
        room.copy_from_slice(elements);
        self.unpublished.insert(first, len);
        Ok(())
    }

    fn publish(&mut self, frontend: u32, extent: u32) -> Result<(), String> {
        rule(!self.since_grace.frontends.contains(&frontend), "the frontend may be in use still")?;
        let key = self.services.iter().find(|&(_, &used)| used == frontend).map(|(key, _)| *key);
        if extent == 0 {
            rule(key.is_none(), "the frontend is in use")?;
        } else {
            rule(self.unpublished.remove(&extent).is_some(), "the extent was not written for this")?;
        }
        let word = self.frontends.get_mut(frontend as usize).ok_or("out of range")?;
        let old = std::mem::replace(word, u64::from(extent));
        if let Some(old) = u32::try_from(old).ok().filter(|&old| old > 0 && key.is_some()) {
            let len = self.extent(old).map_or(1, |(header, _)| length(&header));
            self.since_grace.extents.insert(old, len);
        }
        key.map_or(Ok(()), |key| self.lookup(&key).map(drop))
    }

    fn insert_service(&mut self, key: ServiceKey, frontend: u32) -> Result<(), String> {
        rule(!self.since_grace.removed, "inserted after a removal without a grace period")?;
        rule(!self.services.values().any(|used| *used == frontend), "the frontend is another's")?;
        rule(self.services.insert(key, frontend).is_none(), "the key is there already")?;
        self.since_grace.inserted.insert(key.vip);
        self.lookup(&key).map(drop)
    }

    fn remove_service(&mut self, key: &ServiceKey) -> Result<(), String> {
        let frontend = self.services.remove(key).ok_or("the key is not there")?;
        rule(!self.is_whole(&key.vip), "what is beneath us serves it from now on, and it would be refused")?;
        self.since_grace.removed = true;
        self.since_grace.frontends.insert(frontend);
        Ok(())
    }

    fn set_backend_state(&mut self, backend: u32, state: BackendState) -> Result<(), String> {
        let known =
            self.backend_state.get_mut(backend as usize).filter(|_| backend > 0).ok_or("out of range")?;
        let old = std::mem::replace(known, state);
        if state.generation() != old.generation() {
            rule(old.liveness() == Liveness::Gone, "the backend is in use")?;
            rule(!self.since_grace.backends.contains(&backend), "the backend may be in use still")?;
            rule(state.generation() == old.generation().wrapping_add(1), "generations go up by one")?;
            let is_first = old.generation() == 0;
            rule(
                is_first || self.was_reset.remove(&backend),
                "the backend's counters are its predecessor's",
            )?;
        } else if old.liveness() == Liveness::Gone {
            rule(state.liveness() == Liveness::Gone, "back from the dead in the same generation")?;
        }
        if state.liveness() == Liveness::Gone {
            self.since_grace.backends.insert(backend);
        }
        self.check_all()
    }

    fn set_hot(&mut self, word: u32, bits: u64) -> Result<(), String> {
        *self.hot.get_mut(word as usize).ok_or("out of range")? = bits;
        for flow in &self.flows {
            rule(
                self.is_hot(Direction::FromPod, &flow.vip) && self.is_hot(Direction::ToPod, &flow.backend),
                "a flow needs the bit",
            )?;
        }
        self.check_all()
    }

    fn check_all(&self) -> Result<(), String> {
        self.services.keys().try_for_each(|key| self.lookup(key).map(drop))
    }
}

/// Of an extent.
fn length(header: &Header) -> u32 {
    1 + header.count + u32::from(header.probe)
}

fn rule(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

impl Dataplane for FakeDataplane {
    fn run(&mut self, transaction: &[Operation]) -> Result<(), DataplaneError> {
        for operation in transaction {
            let done = if self.fail_at == Some(self.done) {
                self.fail_at = None;
                Err("told to fail".to_owned())
            } else {
                self.apply(operation)
            };
            self.done += 1;
            done.map_err(|message| DataplaneError {
                map: "fake",
                action: format!("{operation:?}"),
                source: io::Error::other(message),
            })?;
        }
        Ok(())
    }

    fn dump(&self) -> Result<Dump, DataplaneError> {
        if let Some(rest) = self.failing_dumps.get().checked_sub(1) {
            self.failing_dumps.set(rest);
            return Err(DataplaneError {
                map: MapName::Services.as_str(),
                action: "reading all entries".into(),
                source: io::Error::other("told to fail"),
            });
        }
        Ok(Dump {
            services: self.services.clone(),
            vips: self.vips.clone(),
            frontends: self.frontends.clone(),
            backends: self.backends.clone(),
            backend_state: self.backend_state.clone(),
            hot: self.hot.clone(),
            flows: self.flows.clone(),
        })
    }
}
