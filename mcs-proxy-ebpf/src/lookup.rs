//! From what a client calls to the backend of a new flow: one hash, two array reads.

use crate::{maps, packet::Packet};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use mcs_proxy_ebpf::{
    abi::{Address, Port, Protocol, ServiceKey, Verdict},
    select::select,
};

/// The backend that a new flow gets.
pub(crate) struct Choice {
    pub(crate) address: Address,
    pub(crate) port: Port,
    pub(crate) backend_id: u32,
    pub(crate) generation: u32,
    pub(crate) service: u32,
}

/// Chooses for a packet that belongs to no flow. Only a SYN or a datagram may open one: what else arrives belongs
/// to a connection that was there before us, and what is beneath us has it.
#[inline(always)]
pub(crate) fn choose(packet: &Packet) -> Result<Choice, Verdict> {
    let key = ServiceKey::new(packet.destination, packet.destination_port, packet.protocol.number());
    let frontend = maps::frontend_index(&key).ok_or(Verdict::NoService)?;
    if matches!(packet.protocol, Protocol::Tcp) && !packet.is_syn() {
        return Err(Verdict::UnknownConnection);
    }
    let extent = match maps::extent_of(frontend) {
        // Taken out between our two lookups.
        Some(0) => return Err(Verdict::NoService),
        Some(extent) => extent,
        None => return Err(Verdict::Corrupt),
    };
    let header = maps::element(extent).and_then(|element| element.as_header()).ok_or(Verdict::Corrupt)?;
    if header.frontend != frontend {
        return Err(Verdict::Corrupt);
    }
    if header.count == 0 {
        return Err(Verdict::NoBackend);
    }
    let index = select(
        header.algorithm,
        header.count,
        || maps::take_turn(header.service),
        // SAFETY: the helper takes nothing and touches nothing of ours.
        || unsafe { bpf_get_prandom_u32() },
        // Maglev tables are not written yet; a header that asks for one falls back to chance.
        || unsafe { bpf_get_prandom_u32() },
    )
    .ok_or(Verdict::Corrupt)?;
    let slot = maps::element(extent.wrapping_add(1).wrapping_add(index))
        .and_then(|element| element.as_slot())
        .ok_or(Verdict::Corrupt)?;
    Ok(Choice {
        address: slot.address,
        port: slot.port,
        backend_id: slot.backend,
        generation: maps::backend_state(slot.backend).generation(),
        service: header.service,
    })
}
