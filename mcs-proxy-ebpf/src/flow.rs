//! The memory of flows: a pair of entries each, inserted together or not at all.

use crate::{
    lookup::Choice,
    maps::{self, Insert},
    packet::{Packet, TCP_FIN, TCP_RST},
};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use mcs_proxy_ebpf::abi::{Address, Flow, FlowState, Port, Protocol, Reply, TICK_SHIFT, Tuple, Verdict};

/// How many ticks an entry may lag behind: a second at 250 Hz. Renewing it with every packet would make CPUs
/// contend for its cache line.
const RENEW_TICKS: u32 = 4;

/// Now, in ticks.
#[inline(always)]
pub(crate) fn ticks() -> u32 {
    // SAFETY: the helper takes nothing; the JIT makes a load of it.
    (unsafe { bpf_jiffies64() } >> TICK_SHIFT) as u32
}

/// What a lookup of a packet from a pod finds. A plain struct, not an enum with fields: an absent field would be
/// undefined, the compiler spills undefined registers, and the verifier refuses that.
pub(crate) struct Known {
    pub(crate) status: Status,
    pub(crate) address: Address,
    pub(crate) port: Port,
    pub(crate) service: u32,
    pub(crate) backend_id: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// No flow: the other fields are zero.
    Unknown,
    /// A flow that goes on: the packet goes where it says.
    Current,
    /// A flow whose tuple a new one takes over, if it may.
    Outdated,
}

const UNKNOWN: Known = Known {
    status: Status::Unknown,
    address: Address::UNSPECIFIED,
    port: Port::from_raw(0),
    service: 0,
    backend_id: 0,
};

/// Looks the packet's flow up and notes that it was seen.
#[inline(always)]
pub(crate) fn find(key: &Tuple, packet: &Packet, interface: u32) -> Known {
    let Some(pointer) = maps::flow(key) else { return UNKNOWN };
    // SAFETY: the entry is memory of the map until this program ends. Other CPUs may write to it: every field is
    // read once, and the check of the repeated key below shows whether it is still the entry that was looked up.
    let flow = unsafe { &mut *pointer };
    let mut known = Known {
        status: Status::Current,
        address: flow.backend,
        port: flow.backend_port,
        service: flow.service,
        backend_id: flow.backend_id,
    };
    let generation = flow.generation;
    let (isn, owner) = (flow.isn, flow.interface);
    if flow.vip != packet.destination || flow.client_port != packet.source_port {
        return UNKNOWN;
    }
    let outdated = owner != interface
        || match packet.protocol {
            // A SYN with another sequence number is a new connection, whatever the old one's state; with the same
            // one it is a retransmit and must not be counted twice.
            Protocol::Tcp => packet.is_syn() && isn != packet.sequence,
            // A datagram has no connection to lose: it selects anew once its backend is gone.
            Protocol::Udp | Protocol::Sctp => !maps::backend_state(known.backend_id).keeps(generation),
        };
    if outdated {
        known.status = Status::Outdated;
        return known;
    }
    if packet.tcp_flags & (TCP_FIN | TCP_RST) != 0 {
        flow.state = FlowState::Closing as u8;
    }
    let now = ticks();
    if now.wrapping_sub(flow.last_seen) >= RENEW_TICKS {
        flow.last_seen = now;
    }
    known
}

/// Remembers a new flow, both ways.
///
/// The reply goes first, as the lock: its key is the tuple on the wire, which no two flows may share.
#[inline(always)]
pub(crate) fn open(
    key: &Tuple,
    packet: &Packet,
    interface: u32,
    choice: &Choice,
    known: &Known,
) -> Result<(), Verdict> {
    if known.status == Status::Outdated {
        maps::remove_reply(&reply_key(packet, &known.address, known.port));
    }
    let last_seen = ticks();
    let reply_key = reply_key(packet, &choice.address, choice.port);
    let reply = Reply {
        vip: packet.destination,
        backend: choice.address,
        vip_port: packet.destination_port,
        backend_port: choice.port,
        client_port: packet.source_port,
        protocol: packet.protocol.number(),
        state: FlowState::New as u8,
        backend_id: choice.backend_id,
        service: choice.service,
        interface,
        last_seen,
    };
    let locked = match maps::insert_reply(&reply_key, &reply, Insert::New) {
        Ok(()) => Ok(()),
        Err(_) => take_over(&reply_key, &reply),
    };
    let flow = Flow {
        backend: choice.address,
        vip: packet.destination,
        backend_port: choice.port,
        vip_port: packet.destination_port,
        client_port: packet.source_port,
        protocol: packet.protocol.number(),
        state: FlowState::New as u8,
        backend_id: choice.backend_id,
        generation: choice.generation,
        interface,
        isn: packet.sequence,
        service: choice.service,
        last_seen,
    };
    if let Err(verdict) = locked {
        // The old flow's reply is gone: it must not outlive it.
        if known.status == Status::Outdated {
            maps::remove_flow(key);
        }
        return Err(verdict);
    }
    if maps::insert_flow(key, &flow, Insert::Overwrite).is_err() {
        maps::remove_reply(&reply_key);
        return Err(Verdict::FlowsFull);
    }
    Ok(())
}

/// The reply could not be inserted. If an entry is in the way that a pod left behind, it may be overwritten: one of
/// the same conversation, whose other half was lost, or one that is closing.
#[inline(always)]
fn take_over(key: &Tuple, reply: &Reply) -> Result<(), Verdict> {
    let Some(pointer) = maps::reply(key) else { return Err(Verdict::FlowsFull) };
    // SAFETY: as in `find`.
    let old = unsafe { &*pointer };
    let other = Tuple::new(key.client, key.client_port, old.vip, old.vip_port, key.protocol);
    if old.vip != reply.vip || old.vip_port != reply.vip_port {
        let open = match maps::flow(&other) {
            Some(flow) => {
                // SAFETY: as in `find`.
                let state = unsafe { (*flow).state };
                state != FlowState::Closing as u8
            }
            None => false,
        };
        if open {
            return Err(Verdict::TupleTaken);
        }
        maps::remove_flow(&other);
    }
    maps::insert_reply(key, reply, Insert::Overwrite).map_err(|_| Verdict::FlowsFull)
}

/// What a packet to a pod is translated to.
pub(crate) struct Origin {
    pub(crate) vip: Address,
    pub(crate) port: Port,
    pub(crate) service: u32,
    pub(crate) backend_id: u32,
    /// Nothing had come back on this flow before.
    pub(crate) first: bool,
}

/// Looks up which flow the packet answers, and notes that it did.
#[inline(always)]
pub(crate) fn find_reply(packet: &Packet, interface: u32) -> Result<Origin, Verdict> {
    let key = Tuple::new(
        packet.destination,
        packet.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol.number(),
    );
    let pointer = maps::reply(&key).ok_or(Verdict::NoFlow)?;
    // SAFETY: as in `find`.
    let reply = unsafe { &mut *pointer };
    let origin = Origin {
        vip: reply.vip,
        port: reply.vip_port,
        service: reply.service,
        backend_id: reply.backend_id,
        first: reply.state == FlowState::New as u8,
    };
    let owner = reply.interface;
    if reply.backend != packet.source || reply.client_port != packet.destination_port {
        return Err(Verdict::NoFlow);
    }
    if owner != interface {
        return Err(Verdict::OtherInterface);
    }
    let now = ticks();
    let closing = packet.tcp_flags & (TCP_FIN | TCP_RST) != 0;
    if origin.first || closing || now.wrapping_sub(reply.last_seen) >= RENEW_TICKS {
        reply.state = FlowState::Established as u8;
        reply.last_seen = now;
        note_reply(packet, &origin, closing, now);
    }
    Ok(origin)
}

/// The flow holds the state for both directions: a reply that changes it says so there.
#[inline(always)]
fn note_reply(packet: &Packet, origin: &Origin, closing: bool, now: u32) {
    let key = Tuple::new(
        packet.destination,
        packet.destination_port,
        origin.vip,
        origin.port,
        packet.protocol.number(),
    );
    let Some(pointer) = maps::flow(&key) else { return };
    // SAFETY: as in `find`.
    let flow = unsafe { &mut *pointer };
    if closing {
        flow.state = FlowState::Closing as u8;
    } else if flow.state == FlowState::New as u8 {
        flow.state = FlowState::Established as u8;
    }
    flow.last_seen = now;
}

#[inline(always)]
fn reply_key(packet: &Packet, backend: &Address, port: Port) -> Tuple {
    Tuple::new(packet.source, packet.source_port, *backend, port, packet.protocol.number())
}
