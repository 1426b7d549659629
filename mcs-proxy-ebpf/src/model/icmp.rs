//! ICMP errors about translated packets, and echo requests.

use super::{Body, Here, Model, Packet, Quote};
use crate::abi::{Direction, Tuple, Verdict};

impl Model {
    /// From the pod, about what it was sent, VIP → client: to be about backend → client.
    pub(super) fn translate_about_reply(
        &mut self,
        packet: &mut Packet,
        quote: &Quote,
        here: Here,
    ) -> Result<Verdict, Verdict> {
        if packet.destination != quote.source {
            return Err(Verdict::NoFlow);
        }
        let flow = self.tables.flow(&quote.about(false)).ok_or(Verdict::NoFlow)?;
        if flow.interface != here.interface {
            return Err(Verdict::NoFlow);
        }
        packet.destination = flow.backend;
        packet.body = Body::Error(Quote {
            source: flow.backend,
            source_port: flow.backend_port,
            destination_port: flow.wire_port,
            ..quote.clone()
        });
        Ok(Verdict::IcmpTranslated)
    }

    /// To the pod, about what it sent, client → backend: to be about client → VIP.
    pub(super) fn translate_about_request(
        &mut self,
        packet: &mut Packet,
        quote: &Quote,
        here: Here,
    ) -> Result<Verdict, Verdict> {
        if !self.tables.is_hot(Direction::ToPod, &quote.destination) {
            return Err(Verdict::NotOurs);
        }
        if packet.destination != quote.source {
            return Err(Verdict::NoFlow);
        }
        let reply = self.tables.reply(&quote.about(true)).ok_or(Verdict::NoFlow)?;
        if reply.interface != here.interface {
            return Err(Verdict::OtherInterface);
        }
        // A router speaks for itself; the backend speaks for the VIP.
        if packet.source == quote.destination {
            packet.source = reply.vip;
        }
        let (destination, destination_port) = (reply.vip, reply.vip_port);
        let source_port = reply.client_port;
        packet.body = Body::Error(Quote { source_port, destination, destination_port, ..quote.clone() });
        Ok(Verdict::IcmpTranslated)
    }

    /// Whether a redirect is about a packet of a flow of this interface's.
    pub(super) fn is_about_a_flow(&self, quote: &Quote, here: Here) -> bool {
        let key = quote.about(true);
        [&self.tables.established, &self.tables.transient]
            .iter()
            .any(|place| place.replies.get(&key).is_some_and(|reply| reply.interface == here.interface))
    }

    /// Answers as the VIP would if it were a machine.
    pub(super) fn answer_echo(&mut self, packet: &mut Packet) -> Result<Verdict, Verdict> {
        if !self.tables.vips.contains(&packet.destination) {
            return Err(Verdict::NoService);
        }
        (packet.source, packet.destination) = (packet.destination, packet.source);
        packet.body = Body::EchoReply;
        Ok(Verdict::EchoReplied)
    }
}

impl Quote {
    /// The key of the flow whose packet is quoted: one of the client's, or one to it.
    const fn about(&self, is_clients: bool) -> Tuple {
        let protocol = self.protocol.number();
        if is_clients {
            Tuple::new(self.source, self.source_port, self.destination, self.destination_port, protocol)
        } else {
            Tuple::new(self.destination, self.destination_port, self.source, self.source_port, protocol)
        }
    }
}
