//! The packet path as a pure function of a packet, the interface it is on and the time: what the programs do, said
//! once more over plain collections, to be read, tested on the host, and compared with the programs packet by packet.
//!
//! The model shares with the programs what needs no map and no packet buffer: the layout of entries ([`abi`](crate::abi)),
//! the filter, the choice of a slot ([`select`](crate::select)) and the rules of a flow's life
//! ([`transition`](crate::transition)). Everything else (the order of lookups and inserts, what is counted, which
//! verdict wins) is written a second time and without regard to the verifier.
//!
//! Left out, because it is about bytes, memory or chance and not about flows:
//! - offsets, checksums and offloads: a [`Packet`] has fields, and who compares it with bytes computes checksums anew;
//! - corrupt maps and an LRU's evictions: tables hold what was put there, until a test takes one half away;
//! - two packets at the same time;
//! - bridges, and sockets that pods have besides: what of them counts lies outside of the maps;
//! - IPv4 options, IPv6 extension headers, fragments, and quotes that are cut short.
#![forbid(unsafe_code)]

mod choice;
mod hairpin;
mod icmp;
mod life;
mod opening;
mod packet;
mod reject;
mod reply;
mod tables;
#[cfg(test)]
mod tests;

use crate::abi::{BackendCounters, Direction, Port, ServiceCounters, Verdict};
pub use packet::{Body, Packet, Quote, Segment};
use std::collections::{BTreeMap, VecDeque};
pub use tables::{Frontend, Limits, Place, Remembered, Tables};

/// What the programs would do next.
#[derive(Clone, Debug)]
pub struct Model {
    /// What user space has written, and what packets have left behind.
    pub tables: Tables,
    pub counters: Counters,
    /// What the next lots come to, in turn, by which backends are drawn: they take the place of `bpf_get_prandom_u32`.
    pub lots: VecDeque<u32>,
    /// The port that is drawn where a flow needs another than its client's own.
    pub other_port: Port,
}

/// What the programs have counted. Where nothing was counted, nothing is entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub verdicts: BTreeMap<Verdict, u64>,
    /// By service id.
    pub services: BTreeMap<u32, ServiceCounters>,
    /// By backend id.
    pub backends: BTreeMap<u32, BackendCounters>,
}

/// Where a packet is met, and when.
#[derive(Clone, Copy, Debug)]
pub struct Here {
    /// Index of the interface.
    pub interface: u32,
    /// In ticks, see [`TICK_SHIFT`](crate::abi::TICK_SHIFT).
    pub now: u32,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// As it leaves the program, whatever the verdict's action is: what is dropped is dropped as it came.
    pub packet: Packet,
}

impl Model {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (counters, lots) = (Counters::default(), VecDeque::new());
        Self { tables: Tables::new(limits), counters, lots, other_port: Port::default() }
    }

    /// A packet on its way from a pod: the program `from_pod`.
    pub fn from_pod(&mut self, mut packet: Packet, here: Here) -> Outcome {
        let mut verdict = self.sort(&mut packet, here).unwrap_or_else(|verdict| verdict);
        if verdict == Verdict::NoBackend {
            verdict = self.refuse(&mut packet, here);
        } else if verdict == Verdict::Ended && self.refuse(&mut packet, here) != Verdict::Rejected {
            verdict = Verdict::RejectLimited;
        }
        self.conclude(verdict, packet)
    }

    /// A packet on its way to a pod: the program `to_pod`.
    pub fn to_pod(&mut self, mut packet: Packet, here: Here) -> Outcome {
        let verdict = self.sort_back(&mut packet, here).unwrap_or_else(|verdict| verdict);
        self.conclude(verdict, packet)
    }

    fn conclude(&mut self, verdict: Verdict, packet: Packet) -> Outcome {
        self.counters.count(verdict);
        Outcome { verdict, packet }
    }

    fn sort(&mut self, packet: &mut Packet, here: Here) -> Result<Verdict, Verdict> {
        if !self.tables.is_hot(Direction::FromPod, &packet.destination) {
            if let Body::Segment(segment) = &packet.body
                && segment.may_open()
                && self.tables.is_hot(Direction::ToPod, &packet.destination)
            {
                return self.check_direct(&segment.key(packet), here);
            }
            return Err(Verdict::NotOurs);
        }
        match packet.body.clone() {
            Body::Segment(segment) => self.forward(packet, &segment, here),
            Body::EchoRequest => self.answer_echo(packet),
            Body::Error(quote) => self.translate_about_reply(packet, &quote, here),
            Body::EchoReply | Body::Redirect(_) | Body::Other => Err(Verdict::Unsupported),
        }
    }

    fn sort_back(&mut self, packet: &mut Packet, here: Here) -> Result<Verdict, Verdict> {
        match packet.body.clone() {
            Body::Segment(segment) => {
                if !self.tables.is_hot(Direction::ToPod, &packet.source) {
                    return Err(Verdict::NotOurs);
                }
                self.backward(packet, &segment, here)
            }
            Body::Redirect(quote) if self.is_about_a_flow(&quote, here) => Err(Verdict::HostRedirect),
            Body::Error(quote) => self.translate_about_request(packet, &quote, here),
            Body::Redirect(_) | Body::EchoRequest | Body::EchoReply => Err(Verdict::NotOurs),
            Body::Other if self.tables.is_hot(Direction::ToPod, &packet.source) => Err(Verdict::Unsupported),
            Body::Other => Err(Verdict::NotOurs),
        }
    }

    fn forward(&mut self, packet: &mut Packet, segment: &Segment, here: Here) -> Result<Verdict, Verdict> {
        let key = segment.key(packet);
        let is_answer = packet.destination == self.tables.hairpin(packet.source.is_v4());
        let (target, is_new) = match self.find(&key, segment, here) {
            life::Known::Current(target) => (target, false),
            life::Known::Ended => return Err(Verdict::Ended),
            life::Known::Outdated | life::Known::Unknown if is_answer => {
                return self.answer_itself(packet, segment, here);
            }
            life::Known::Outdated | life::Known::Unknown => (self.open(&key, segment, here)?, true),
        };
        let is_hairpin = target.address == packet.source;
        packet.destination = target.address;
        packet.body = Body::Segment(Segment {
            source_port: target.wire_port,
            destination_port: target.port,
            ..segment.clone()
        });
        if is_hairpin {
            packet.source = self.tables.hairpin(packet.source.is_v4());
        }
        let service = self.counters.services.entry(target.service).or_default();
        service.flows += u64::from(is_new);
        service.packets_in += 1;
        service.bytes_in += packet.bytes;
        let backend = self.counters.backends.entry(target.backend_id).or_default();
        backend.flows += u32::from(is_new);
        backend.bytes += packet.bytes;
        Ok(match (is_hairpin, is_new) {
            (true, _) => Verdict::HairpinForwarded,
            (false, true) => Verdict::NewFlow,
            (false, false) => Verdict::Forwarded,
        })
    }
}

impl Counters {
    fn count(&mut self, verdict: Verdict) {
        *self.verdicts.entry(verdict).or_default() += 1;
    }
}
