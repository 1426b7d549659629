//! What happens beside packets, to the maps and to the model's tables.

use super::{
    lockstep::{Lockstep, id, new_model, port, services},
    snapshot::{Snapshot, moved},
    stage::{self, BACKENDS, SERVICES},
};
use crate::programs::{POD, Programs};
use aya::Pod;
use mcs_proxy_ebpf::{
    abi::{
        Affinity, AffinityKey, BackendState, Element, Flow, Header, Liveness, MapName, Reply, ServiceKey,
        Slot, Tuple, VIP_WHOLE,
    },
    model,
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
            self.set_endpoints(service, &[0, 1]);
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
    pub(super) fn set_endpoints(&mut self, service: u8, backends: &[u8]) {
        let stage::Service { protocol, algorithm, affinity_seconds, .. } = SERVICES[usize::from(service)];
        let (index, vip) = (id(self.v6, service), stage::called(self.v6, service));
        let slots: Vec<_> = backends
            .iter()
            .map(|&backend| {
                let address = stage::backend(self.v6, backend);
                Slot { address: address.ip().into(), port: port(address), backend: u32::from(backend) + 1 }
            })
            .collect();
        let extent = 16 + 8 * index;
        let count = u32::try_from(slots.len()).unwrap();
        let header = Header {
            count,
            service: index,
            frontend: index,
            algorithm,
            affinity_seconds,
            packets_only: false,
            probe: false,
        };
        self.programs.set_element(extent, Element::header(&header));
        for (slot, element) in slots.iter().zip(extent + 1..) {
            self.programs.set_element(element, Element::slot(slot));
        }
        self.programs.publish(index, extent);
        let key = ServiceKey::new(vip.ip().into(), port(vip), protocol);
        let frontend = model::Frontend { service: index, algorithm, affinity_seconds, slots };
        self.model.tables.frontends.insert(key, frontend);
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
