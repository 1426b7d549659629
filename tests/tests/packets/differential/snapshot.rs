//! What the maps hold, beside what the model has.

use super::{
    lockstep::{Lockstep, id, services},
    stage::BACKENDS,
    state::extent,
};
use crate::programs::{POD, Place};
use mcs_proxy_ebpf::{
    abi::{Address, Affinity, AffinityKey, Element, Flow, MapName, Protocol, Verdict},
    model::{Counters, Model, Place as Pair, Remembered},
};
use std::{collections::BTreeMap, fmt::Debug};

/// The maps, in the model's terms.
#[derive(Debug)]
pub(super) struct Snapshot {
    established: Pair,
    transient: Pair,
    affinity: BTreeMap<(u32, Address), Remembered>,
    interface_flows: Vec<(u32, i64)>,
    cursors: Vec<(u32, u64)>,
    /// Services whose probe is still to be had.
    probes: Vec<u32>,
    counters: Counters,
}

impl Snapshot {
    pub(super) fn take(lockstep: &mut Lockstep) -> Self {
        let Lockstep { programs, offset, v6, elsewhere, .. } = lockstep;
        let place = |place| {
            let (mut flows, mut replies) = programs.flows_in(place);
            flows.values_mut().for_each(|flow| *flow = moved(*flow, *offset));
            replies.values_mut().for_each(|reply| reply.last_seen = reply.last_seen.wrapping_add(*offset));
            Pair { flows, replies }
        };
        let (established, transient) = (place(Place::Established), place(Place::Transient));
        let interface_flows =
            [POD, *elsewhere].map(|interface| (interface, programs.share(interface).cast_signed())).to_vec();
        let cursors = (0..services())
            .map(|service| id(*v6, service))
            .map(|id| (id, programs.array::<u64>(MapName::Cursors).get(&id, 0).unwrap()))
            .collect();
        let is_there = |id: &u32| {
            let elements = programs.array::<Element>(MapName::Backends);
            let header = elements.get(&extent(*id), 0).unwrap().as_header().unwrap();
            let behind = elements.get(&(extent(*id) + 1 + header.count), 0).unwrap();
            header.probe && behind.as_slot().is_some_and(|slot| slot.backend != 0)
        };
        let probes = (0..services()).map(|service| id(*v6, service)).filter(is_there).collect();
        let affinity = programs
            .hash::<AffinityKey, Affinity>(MapName::Affinity)
            .iter()
            .map(Result::unwrap)
            .map(|(key, entry)| ((key.service, key.client), remembered(&entry, *offset)))
            .collect();
        let counters = Self::counters(lockstep);
        Self { established, transient, affinity, interface_flows, cursors, probes, counters }
    }

    /// Of the verdicts, only the one that is counted beside another: the others are those of the packets.
    pub(super) fn counters(lockstep: &Lockstep) -> Counters {
        let Lockstep { programs, v6, verdicts, .. } = lockstep;
        let services = (0..services()).map(|service| id(*v6, service));
        Counters {
            verdicts: [(Verdict::NotPromoted, verdicts[&Verdict::NotPromoted])].into(),
            services: services.map(|id| (id, programs.service_counters(id))).collect(),
            backends: (1..=u32::from(BACKENDS)).map(|id| (id, programs.backend_counters(id))).collect(),
        }
    }

    /// The first thing that is not as in the model.
    pub(super) fn difference(&self, model: &Model) -> Option<String> {
        let (tables, counters) = (&model.tables, &model.counters);
        let of = |interface: &u32| tables.interface_flows.get(interface).copied().unwrap_or_default();
        let shares = self.interface_flows.iter().map(|(interface, _)| (*interface, of(interface))).collect();
        let turns = |service: &u32| tables.cursors.get(service).copied().unwrap_or_default();
        let cursors = self.cursors.iter().map(|(service, _)| (*service, turns(service))).collect();
        let mut probes: Vec<u32> =
            tables.frontends.values().filter(|it| it.probe.is_some()).map(|it| it.service).collect();
        probes.sort_unstable();
        let unpromoted = |counters: &Counters| counters.verdicts.get(&Verdict::NotPromoted).copied();
        None.or_else(|| differ("established flows", &self.established.flows, &tables.established.flows))
            .or_else(|| differ("established replies", &self.established.replies, &tables.established.replies))
            .or_else(|| differ("transient flows", &self.transient.flows, &tables.transient.flows))
            .or_else(|| differ("transient replies", &self.transient.replies, &tables.transient.replies))
            .or_else(|| differ("affinity", &self.affinity, &tables.affinity))
            .or_else(|| differ("flows by interface", &self.interface_flows, &shares))
            .or_else(|| differ("turns by service", &self.cursors, &cursors))
            .or_else(|| differ("probes that are left", &self.probes, &probes))
            .or_else(|| differ("counters by service", &self.counters.services, &counters.services))
            .or_else(|| differ("counters by backend", &self.counters.backends, &counters.backends))
            .or_else(|| differ("not promoted", &unpromoted(&self.counters), &unpromoted(counters)))
    }
}

fn differ<T: PartialEq + Debug>(what: &str, programs: &T, model: &T) -> Option<String> {
    (programs != model).then(|| format!("{what}: the programs have\n  {programs:?}\nthe model\n  {model:?}"))
}

/// With its dates moved on.
pub(super) fn moved(flow: Flow, ticks: u32) -> Flow {
    let last_seen = flow.last_seen.wrapping_add(ticks);
    // Of a connection it is no date.
    let is_date = flow.protocol == Protocol::Udp.number();
    Flow { last_seen, isn: if is_date { flow.isn.wrapping_add(ticks) } else { flow.isn }, ..flow }
}

fn remembered(entry: &Affinity, offset: u32) -> Remembered {
    Remembered {
        backend: entry.backend,
        port: entry.backend_port,
        backend_id: entry.backend_id,
        generation: entry.generation,
        last_used: entry.last_used.wrapping_add(offset),
    }
}
