//! The backend of a new flow.

use super::{Frontend, Here, Model, Remembered, Segment, tables::Tables};
use crate::{
    abi::{Address, Flow, Liveness, Port, ServiceKey, Slot, Tuple, Verdict},
    select::{flow_hash, select},
};

/// Where a packet from a pod goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) port: Port,
    pub(super) backend_id: u32,
    pub(super) generation: u32,
    pub(super) service: u32,
    /// From which of the client's ports, as the backend sees it.
    pub(super) wire_port: Port,
}

impl Target {
    pub(super) const fn of(flow: &Flow) -> Self {
        Self {
            address: flow.backend,
            port: flow.backend_port,
            backend_id: flow.backend_id,
            generation: flow.generation,
            service: flow.service,
            wire_port: flow.wire_port,
        }
    }
}

impl Model {
    /// Chooses for a packet that belongs to no flow. Only a SYN or a datagram may open one.
    pub(super) fn choose(&mut self, key: &Tuple, segment: &Segment, here: Here) -> Result<Target, Verdict> {
        let service_key = ServiceKey::new(key.peer, key.peer_port, key.protocol);
        let may_open = segment.may_open();
        let Some(frontend) = self.tables.frontends.get(&service_key).cloned() else {
            let is_nobodys = may_open && self.tables.whole.contains(&key.peer);
            return Err(if is_nobodys { Verdict::NoBackend } else { Verdict::NoService });
        };
        if !may_open {
            return Err(Verdict::UnknownConnection);
        }
        if frontend.slots.is_empty() {
            return Err(Verdict::NoBackend);
        }
        if frontend.affinity_seconds != 0
            && let Some(target) = self.tables.recall(frontend.service, key, frontend.affinity_seconds, here)
        {
            return Ok(target);
        }
        let probe = self.tables.frontends.get_mut(&service_key).and_then(|frontend| frontend.probe.take());
        let slot = match probe {
            Some(slot) => slot,
            None => self.turn(key, &frontend)?,
        };
        let Slot { address, port, backend } = slot;
        let target = Target {
            address,
            port,
            backend_id: backend,
            generation: self.tables.state_of(backend).generation(),
            service: frontend.service,
            wire_port: key.client_port,
        };
        if frontend.affinity_seconds != 0 {
            let remembered = Remembered {
                backend: address,
                port,
                backend_id: backend,
                generation: target.generation,
                last_used: here.now,
            };
            self.tables.affinity.insert((frontend.service, key.client), remembered);
        }
        Ok(target)
    }

    /// The slot that the algorithm gives the flow.
    fn turn(&mut self, key: &Tuple, frontend: &Frontend) -> Result<Slot, Verdict> {
        let count = u32::try_from(frontend.slots.len()).map_err(|_| Verdict::Corrupt)?;
        let index = select(
            frontend.algorithm,
            count,
            || Some(self.tables.take_turn(frontend.service)),
            || self.lots.pop_front().unwrap_or_default(),
            || flow_hash(&key.client, key.client_port, &key.peer, key.peer_port, key.protocol),
        )
        .ok_or(Verdict::Corrupt)?;
        Ok(frontend.slots[index as usize])
    }
}

impl Tables {
    /// What the client's last flow chose, if that is not too long ago and the backend still takes new flows.
    fn recall(&mut self, service: u32, key: &Tuple, timeout_seconds: u32, here: Here) -> Option<Target> {
        let client = key.client;
        let timeout = timeout_seconds.saturating_mul(self.limits.ticks_per_second);
        let remembered = *self.affinity.get(&(service, client))?;
        let state = self.state_of(remembered.backend_id);
        let is_live = state.generation() == remembered.generation && state.liveness() == Liveness::Live;
        if here.now.wrapping_sub(remembered.last_used) > timeout || !is_live {
            return None;
        }
        self.affinity.insert((service, client), Remembered { last_used: here.now, ..remembered });
        Some(Target {
            address: remembered.backend,
            port: remembered.port,
            backend_id: remembered.backend_id,
            generation: remembered.generation,
            service,
            wire_port: key.client_port,
        })
    }
}
