//! From what a client calls to the backend of a new flow: one hash, two array reads; one more hash with affinity.

use crate::{affinity, maps, orphan, packet::Packet};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use mcs_proxy_ebpf::{
    abi::{Address, Affinity, AffinityKey, Port, ServiceKey, Verdict},
    select::{flow_hash, select},
};

/// The backend that a new flow gets.
pub(crate) struct Choice {
    pub(crate) address: Address,
    pub(crate) port: Port,
    pub(crate) backend_id: u32,
    pub(crate) generation: u32,
    pub(crate) service: u32,
}

/// What does not fit on the stack beside the flow that is about to be made.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) service_key: ServiceKey,
    pub(crate) choice: Choice,
    pub(crate) affinity_key: AffinityKey,
    pub(crate) affinity: Affinity,
}

/// Chooses for a packet that belongs to no flow. Only a SYN or a datagram may open one: what else arrives belongs
/// to a connection that was there before us, and what is beneath us has it.
#[inline(always)]
pub(crate) fn choose(packet: &Packet) -> Result<&'static Choice, Verdict> {
    if packet.may_open() {
        orphan::refuse()?;
    }
    let scratch = maps::scratch().ok_or(Verdict::Corrupt)?;
    scratch.service_key =
        ServiceKey::new(packet.destination, packet.destination_port, packet.protocol.number());
    let Some(frontend) = maps::frontend_index(&scratch.service_key) else {
        let is_nobodys = packet.may_open() && maps::is_whole(&packet.destination);
        return Err(if is_nobodys { Verdict::NoBackend } else { Verdict::NoService });
    };
    if !packet.may_open() {
        return Err(Verdict::UnknownConnection);
    }
    let caller = Caller { address: &packet.source, port: packet.source_port, is_socket: false };
    pick(scratch, frontend, &caller)?;
    Ok(&scratch.choice)
}

/// Who asks for a backend.
pub(crate) struct Caller<'a> {
    /// What ClientIP affinity knows it by.
    pub(crate) address: &'a Address,
    pub(crate) port: Port,
    pub(crate) is_socket: bool,
}

/// Chooses for a caller of the frontend that `scratch.service_key` names; the choice is left in `scratch`.
#[inline(always)]
pub(crate) fn pick(scratch: &mut Scratch, frontend: u32, caller: &Caller<'_>) -> Result<(), Verdict> {
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
    if caller.is_socket && header.packets_only {
        return Err(Verdict::NoService);
    }
    if header.count == 0 {
        return Err(Verdict::NoBackend);
    }
    let timeout = header.affinity_seconds;
    if timeout != 0 && affinity::recall(scratch, header.service, caller.address, timeout) {
        return Ok(());
    }
    // What a socket is answered, nobody here would see.
    let probed = if header.probe && !caller.is_socket {
        maps::take_probe(extent.wrapping_add(1).wrapping_add(header.count))
    } else {
        0
    };
    let index = if probed != 0 {
        header.count
    } else {
        select(
            header.algorithm,
            header.count,
            || maps::take_turn(header.service),
            // SAFETY: the helper takes nothing and touches nothing of ours.
            || unsafe { bpf_get_prandom_u32() },
            || {
                flow_hash(
                    caller.address,
                    caller.port,
                    &scratch.service_key.vip,
                    scratch.service_key.port,
                    scratch.service_key.protocol,
                )
            },
        )
        .ok_or(Verdict::Corrupt)?
    };
    let slot = maps::element(extent.wrapping_add(1).wrapping_add(index))
        .and_then(|element| element.as_slot())
        .ok_or(Verdict::Corrupt)?;
    let backend = if probed != 0 { probed } else { slot.backend };
    scratch.choice = Choice {
        address: slot.address,
        port: slot.port,
        backend_id: backend,
        generation: maps::backend_state(backend).generation(),
        service: header.service,
    };
    if timeout != 0 {
        affinity::note(scratch, caller.address);
    }
    Ok(())
}
