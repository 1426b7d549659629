//! The way back to the pod.

use super::{Body, Here, Model, Packet, Segment};
use crate::{
    abi::{FlowState, Reply, Tuple, Verdict},
    transition::end_of,
};

/// What a reply is once something came back.
pub(super) const fn answered(mut reply: Reply) -> Reply {
    reply.state = reply.state.with(FlowState::ANSWERED);
    reply
}

impl Model {
    pub(super) fn backward(
        &mut self,
        packet: &mut Packet,
        segment: &Segment,
        here: Here,
    ) -> Result<Verdict, Verdict> {
        let reply_key = Tuple::new(
            packet.destination,
            segment.destination_port,
            packet.source,
            segment.source_port,
            segment.protocol.number(),
        );
        let reply = self.answered_by(&reply_key, segment, packet.bytes, here)?;
        packet.source = reply.vip;
        packet.body = Body::Segment(Segment {
            source_port: reply.vip_port,
            destination_port: reply.client_port,
            ..segment.clone()
        });
        Ok(Verdict::Replied)
    }

    /// Looks up which flow a packet of so many bytes answers, by its tuple on the wire, and notes that it did.
    pub(super) fn answered_by(
        &mut self,
        reply_key: &Tuple,
        segment: &Segment,
        bytes: u64,
        here: Here,
    ) -> Result<Reply, Verdict> {
        let is_established = self.tables.established.replies.contains_key(reply_key);
        let reply = *self.tables.reply(reply_key).ok_or(Verdict::NoFlow)?;
        if reply.interface != here.interface {
            return Err(Verdict::OtherInterface);
        }
        let is_first = !reply.state.has(FlowState::ANSWERED);
        let end = end_of(segment.tcp_flags, FlowState::BACKEND_FIN);
        if is_first || end != FlowState::NEW || self.tables.is_late(reply.last_seen, here.now) {
            let seen = answered(Reply { last_seen: here.now, ..reply });
            self.tables.place(is_established).replies.insert(*reply_key, seen);
            self.note(is_established, reply_key, &reply, end, here);
        }
        let service = self.counters.services.entry(reply.service).or_default();
        service.packets_out += 1;
        service.bytes_out += bytes;
        let backend = self.counters.backends.entry(reply.backend_id).or_default();
        backend.first_replies += u32::from(is_first);
        backend.bytes += bytes;
        Ok(reply)
    }

    /// The flow holds the state for both directions.
    fn note(&mut self, is_established: bool, reply_key: &Tuple, reply: &Reply, end: FlowState, here: Here) {
        let (client, port) = (reply_key.client, reply.client_port);
        let key = Tuple::new(client, port, reply.vip, reply.vip_port, reply_key.protocol);
        let Some(flow) = self.tables.place(is_established).flows.get_mut(&key) else { return };
        flow.last_seen = here.now;
        flow.state = flow.state.with(end).with(FlowState::ANSWERED);
        if is_established && end != FlowState::NEW && flow.state.is_closed() {
            self.tables.demote(&key);
        }
    }
}
