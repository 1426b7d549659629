//! How a new flow is remembered, both ways, and how it gets a tuple of its own on the wire.

use super::{Here, Model, Segment, choice::Target};
use crate::{
    abi::{Flow, FlowState, Protocol, Reply, Tuple, Verdict},
    transition::{reply_key_of, reply_of},
};

/// How often a new flow is offered a tuple, and how many of them may be by a backend of their own.
const TRIES: u32 = 6;
const BACKENDS: u32 = 3;

impl Model {
    /// Chooses a backend and remembers the flow, in place of the one that had the key before. What nobody takes ends that
    /// one too.
    pub(super) fn open(&mut self, key: &Tuple, segment: &Segment, here: Here) -> Result<Target, Verdict> {
        let mut last = None;
        for tried in 0..TRIES {
            if segment.may_open() {
                self.give_up(key);
            }
            let mut target = self.choose(key, segment, here)?;
            if tried >= BACKENDS || last == Some(target.backend_id) {
                target.wire_port = self.other_port;
            }
            last = Some(target.backend_id);
            match self.remember(key, segment, here, &target) {
                Err(Verdict::TupleTaken) => {}
                remembered => return remembered.map(|()| target),
            }
        }
        Err(Verdict::TupleTaken)
    }

    fn give_up(&mut self, key: &Tuple) {
        if let Some(old) = self.tables.flow(key).copied() {
            self.tables.forget(key, &reply_key_of(key, &old), old.interface);
        }
    }

    fn remember(
        &mut self,
        key: &Tuple,
        segment: &Segment,
        here: Here,
        target: &Target,
    ) -> Result<(), Verdict> {
        let flow = Flow {
            backend: target.address,
            vip: key.peer,
            backend_port: target.port,
            wire_port: target.wire_port,
            client_port: key.client_port,
            protocol: key.protocol,
            state: if target.address == key.client { FlowState::HAIRPIN } else { FlowState::NEW },
            backend_id: target.backend_id,
            generation: target.generation,
            interface: here.interface,
            isn: match segment.protocol {
                Protocol::Tcp | Protocol::Sctp => segment.sequence,
                Protocol::Udp => here.now,
            },
            service: target.service,
            last_seen: here.now,
        };
        let wire = reply_key_of(key, &flow);
        for is_established in [true, false] {
            if let Some(old) = self.tables.place(is_established).replies.get(&wire).copied()
                && owner(&wire, &old) != *key
            {
                self.make_way(is_established, &wire, &old)?;
            }
        }
        self.tables.transient.replies.insert(wire, reply_of(key, &flow));
        self.tables.transient.flows.insert(*key, flow);
        Ok(())
    }

    /// Another flow has this tuple on the wire. If that is over, or has lost its own half, it goes.
    fn make_way(&mut self, is_established: bool, wire: &Tuple, old: &Reply) -> Result<(), Verdict> {
        let other = owner(wire, old);
        if let Some(flow) = self.tables.place(is_established).flows.get(&other)
            && !flow.state.is_closed()
            && reply_key_of(&other, flow) == *wire
        {
            return Err(Verdict::TupleTaken);
        }
        self.tables.forget(&other, wire, old.interface);
        Ok(())
    }

    /// A SYN of the pod's own to a backend: what a flow of the same pod has on the wire, it must not have. A datagram ends
    /// that flow.
    pub(super) fn check_direct(&mut self, wire: &Tuple, here: Here) -> Result<Verdict, Verdict> {
        for is_established in [true, false] {
            if let Some(old) = self.tables.place(is_established).replies.get(wire).copied()
                && old.interface == here.interface
            {
                if wire.protocol == Protocol::Udp.number() {
                    self.tables.forget(&owner(wire, &old), wire, old.interface);
                } else {
                    self.make_way(is_established, wire, &old).map_err(|_| Verdict::DirectTaken)?;
                }
            }
        }
        Err(Verdict::NotOurs)
    }
}

/// The key of the flow that a reply belongs to.
const fn owner(wire: &Tuple, reply: &Reply) -> Tuple {
    Tuple::new(wire.client, reply.client_port, reply.vip, reply.vip_port, wire.protocol)
}
