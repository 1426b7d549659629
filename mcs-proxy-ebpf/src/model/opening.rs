//! How a new flow is remembered, both ways.

use super::{Here, Model, Segment, choice::Target};
use crate::{
    abi::{Flow, FlowState, Protocol, Reply, Tuple, Verdict},
    transition::{reply_key_of, reply_of},
};

impl Model {
    /// Chooses a backend and remembers the flow; `outdated` is the one that had the key before.
    pub(super) fn open(
        &mut self,
        key: &Tuple,
        segment: &Segment,
        here: Here,
        outdated: Option<Flow>,
    ) -> Result<Target, Verdict> {
        let target = self.choose(key, segment, here)?;
        if target.address == key.client {
            return Err(Verdict::Hairpin);
        }
        if let Some(old) = outdated {
            self.tables.forget(key, &reply_key_of(key, &old), old.interface);
        }
        let flow = Flow {
            backend: target.address,
            vip: key.peer,
            backend_port: target.port,
            vip_port: key.peer_port,
            client_port: key.client_port,
            protocol: key.protocol,
            state: FlowState::NEW,
            backend_id: target.backend_id,
            generation: target.generation,
            interface: here.interface,
            isn: match segment.protocol {
                Protocol::Tcp => segment.sequence,
                Protocol::Udp | Protocol::Sctp => here.now,
            },
            service: target.service,
            last_seen: here.now,
        };
        let reply_key = reply_key_of(key, &flow);
        let reply = reply_of(&flow);
        for is_established in [true, false] {
            if let Some(old) = self.tables.place(is_established).replies.get(&reply_key).copied() {
                self.make_way(is_established, &reply_key, &old, &reply)?;
            }
        }
        self.tables.transient.replies.insert(reply_key, reply);
        self.tables.transient.flows.insert(*key, flow);
        Ok(target)
    }

    /// Another flow has this tuple on the wire. If that is over, or has lost its own half, it goes.
    fn make_way(
        &mut self,
        is_established: bool,
        reply_key: &Tuple,
        old: &Reply,
        new: &Reply,
    ) -> Result<(), Verdict> {
        if (old.vip, old.vip_port) == (new.vip, new.vip_port) {
            return Ok(());
        }
        let (client, port) = (reply_key.client, reply_key.client_port);
        let other = Tuple::new(client, port, old.vip, old.vip_port, reply_key.protocol);
        if let Some(flow) = self.tables.place(is_established).flows.get(&other)
            && !flow.state.is_closed()
            && reply_key_of(&other, flow) == *reply_key
        {
            return Err(Verdict::TupleTaken);
        }
        self.tables.forget(&other, reply_key, old.interface);
        Ok(())
    }
}
