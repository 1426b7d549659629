//! A pod's answers to itself, which come from it as its calls do.

use super::{Body, Here, Model, Packet, Segment};
use crate::abi::{Tuple, Verdict};

impl Model {
    /// To the reserved address, by which the pod seems to have been called.
    pub(super) fn answer_itself(
        &mut self,
        packet: &mut Packet,
        segment: &Segment,
        here: Here,
    ) -> Result<Verdict, Verdict> {
        let (client, port) = (packet.source, segment.destination_port);
        let wire = Tuple::new(client, port, client, segment.source_port, segment.protocol.number());
        let reply = self.answered_by(&wire, segment, packet.bytes, here)?;
        (packet.source, packet.destination) = (reply.vip, client);
        packet.body = Body::Segment(Segment {
            source_port: reply.vip_port,
            destination_port: reply.client_port,
            ..segment.clone()
        });
        Ok(Verdict::HairpinReplied)
    }
}
