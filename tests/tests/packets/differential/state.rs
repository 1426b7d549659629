//! What happens beside packets, to the maps and to the model's tables.

use super::{
    lockstep::{Lockstep, id, new_model, port, services},
    snapshot::{Snapshot, moved},
    stage::{self, BACKENDS, SERVICES, TCP},
};
use crate::programs::{POD, Programs};
use aya::Pod;
use mcs_proxy_ebpf::{
    abi::{
        Affinity, AffinityKey, BackendState, Element, Flow, FlowState, Header, Liveness, MapName, Reply,
        ServiceKey, Slot, Tuple, VIP_WHOLE,
    },
    model,
    transition::reply_key_of,
};
use std::collections::BTreeMap;

impl Lockstep {
    /// Nothing is remembered, every Service has two endpoints.
    pub(super) fn begin(&mut self, v6: bool) {
        (self.v6, self.offset) = (v6, 0);
        for (flows, replies) in
            [(MapName::Flows, MapName::Replies), (MapName::Transient, MapName::TransientReplies)]
        {
            clear::<Tuple, Flow>(&mut self.programs, flows);
            clear::<Tuple, Reply>(&mut self.programs, replies);
        }
        clear::<AffinityKey, Affinity>(&mut self.programs, MapName::Affinity);
        for interface in [POD, self.elsewhere] {
            self.programs.array::<u64>(MapName::InterfaceFlows).set(interface, 0, 0).unwrap();
        }
        self.forget_rejects();
        self.model = new_model();
        for backend in 0..BACKENDS {
            self.set_backend(backend, BackendState::new(1, Liveness::Live));
        }
        for service in 0..services() {
            self.programs.array::<u64>(MapName::Cursors).set(id(v6, service), 0, 0).unwrap();
            self.set_endpoints(service, &[0, 1], None);
            self.model.tables.vips.insert(stage::called(v6, service).ip().into());
        }
        let whole = stage::called(v6, stage::OF_WHOLE_VIP);
        self.programs.set_vip(whole, VIP_WHOLE);
        self.model.tables.whole.insert(whole.ip().into());
        self.model.counters = Snapshot::counters(self);
    }

    pub(super) fn set_backend(&mut self, backend: u8, state: BackendState) {
        let id = u32::from(backend) + 1;
        self.programs.set_backend(id, state);
        self.model.tables.backend_state.insert(id, state);
    }

    /// Nobody looks meanwhile, so the extent is written where the last one was.
    pub(super) fn set_endpoints(&mut self, service: u8, backends: &[u8], probe: Option<u8>) {
        let stage::Service { protocol, algorithm, affinity_seconds, .. } = SERVICES[usize::from(service)];
        let (index, vip) = (id(self.v6, service), stage::called(self.v6, service));
        let slot = |backend: u8| {
            let address = stage::backend(self.v6, backend);
            Slot { address: address.ip().into(), port: port(address), backend: u32::from(backend) + 1 }
        };
        let slots: Vec<_> = backends.iter().map(|&backend| slot(backend)).collect();
        let probe = probe.map(slot);
        let extent = extent(index);
        let count = u32::try_from(slots.len()).unwrap();
        let header = Header {
            count,
            service: index,
            frontend: index,
            algorithm,
            affinity_seconds,
            packets_only: false,
            probe: probe.is_some(),
        };
        self.programs.set_element(extent, Element::header(&header));
        for (slot, element) in slots.iter().chain(&probe).zip(extent + 1..) {
            self.programs.set_element(element, Element::slot(slot));
        }
        self.programs.publish(index, extent);
        let key = ServiceKey::new(vip.ip().into(), port(vip), protocol);
        let frontend = model::Frontend { service: index, algorithm, affinity_seconds, slots, probe };
        self.model.tables.frontends.insert(key, frontend);
    }

    /// As the daemon does it: what nobody has answered yet is forgotten.
    pub(super) fn end(&mut self, established: bool, number: usize) {
        let tables = &mut self.model.tables;
        let (place, names) = if established {
            (&mut tables.established, [MapName::Flows, MapName::Replies])
        } else {
            (&mut tables.transient, [MapName::Transient, MapName::TransientReplies])
        };
        let mut open = place
            .flows
            .iter_mut()
            .filter(|(key, flow)| key.protocol == TCP && !flow.state.is_closed() && !flow.state.is_cut());
        let Some((&key, flow)) = open.nth(number) else { return };
        if flow.state.has(FlowState::ANSWERED) {
            flow.state = flow.state.with(FlowState::CUT);
            let state = flow.state;
            let mut flows = self.programs.hash::<Tuple, Flow>(names[0]);
            let held = flows.get(&key, 0).unwrap();
            flows.insert(key, Flow { state, ..held }, 0).unwrap();
            return;
        }
        let reply = reply_key_of(&key, flow);
        place.flows.remove(&key);
        place.replies.remove(&reply);
        lose::<Flow>(&mut self.programs, names[0], Some(key));
        // It may have been evicted.
        let _gone = self.programs.hash::<Tuple, Reply>(names[1]).remove(&reply);
    }

    /// Moves every date in the maps back, which is to them as if time had passed.
    pub(super) fn pass(&mut self, ticks: u32) {
        self.offset += ticks;
        for name in [MapName::Flows, MapName::Transient] {
            change::<Tuple, Flow>(&mut self.programs, name, |flow| {
                *flow = moved(*flow, ticks.wrapping_neg());
            });
        }
        for name in [MapName::Replies, MapName::TransientReplies] {
            change::<Tuple, Reply>(&mut self.programs, name, |reply| {
                reply.last_seen = reply.last_seen.wrapping_sub(ticks);
            });
        }
        change::<AffinityKey, Affinity>(&mut self.programs, MapName::Affinity, |entry| {
            entry.last_used = entry.last_used.wrapping_sub(ticks);
        });
        self.forget_rejects();
    }

    fn forget_rejects(&mut self) {
        for interface in [POD, self.elsewhere] {
            self.programs.array::<u64>(MapName::Rejects).set(interface, 0, 0).unwrap();
        }
        self.model.tables.rejects.clear();
    }

    pub(super) fn lose_transient(&mut self, reply: bool, number: usize) {
        let transient = &mut self.model.tables.transient;
        if reply {
            let key = take_nth(&mut transient.replies, number);
            lose::<Reply>(&mut self.programs, MapName::TransientReplies, key);
        } else {
            let key = take_nth(&mut transient.flows, number);
            lose::<Flow>(&mut self.programs, MapName::Transient, key);
        }
    }

    pub(super) fn lose_established_reply(&mut self, number: usize) {
        let key = take_nth(&mut self.model.tables.established.replies, number);
        lose::<Reply>(&mut self.programs, MapName::Replies, key);
    }
}

/// Where a frontend's slots are: a header, three of them, and one for a probe.
pub(super) const fn extent(index: u32) -> u32 {
    16 + 8 * index
}

fn clear<K: Pod, V: Pod>(programs: &mut Programs, map: MapName) {
    let mut map = programs.hash::<K, V>(map);
    for key in map.keys().map(Result::unwrap).collect::<Vec<_>>() {
        map.remove(&key).unwrap();
    }
}

fn change<K: Pod, V: Pod>(programs: &mut Programs, map: MapName, change: impl Fn(&mut V)) {
    let mut map = programs.hash::<K, V>(map);
    for (key, mut value) in map.iter().map(Result::unwrap).collect::<Vec<_>>() {
        change(&mut value);
        map.insert(key, value, 0).unwrap();
    }
}

fn lose<V: Pod>(programs: &mut Programs, map: MapName, key: Option<Tuple>) {
    if let Some(key) = key {
        programs.hash::<Tuple, V>(map).remove(&key).unwrap();
    }
}

fn take_nth<V>(entries: &mut BTreeMap<Tuple, V>, number: usize) -> Option<Tuple> {
    let key = *entries.keys().nth(number)?;
    entries.remove(&key);
    Some(key)
}
