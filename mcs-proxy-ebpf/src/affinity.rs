//! ClientIP affinity: a client's new flows go where its last one went, until it has opened none for a while.

use crate::{
    flow::ticks,
    lookup::{Choice, Scratch},
    maps,
};
use core::ptr;
use mcs_proxy_ebpf::abi::{Address, Affinity, AffinityKey, Liveness};

/// Chooses what this client's last flow chose, and renews that, if it is not too long ago and the backend still takes
/// new flows. Otherwise `false`, and nothing is chosen.
#[inline(always)]
pub(crate) fn recall(scratch: &mut Scratch, service: u32, client: &Address, timeout_seconds: u32) -> bool {
    scratch.affinity_key = AffinityKey::new(service, *client);
    let Some(pointer) = maps::affinity(&scratch.affinity_key) else { return false };
    // SAFETY: the pointer is to an aligned value of the map. Volatile, because the kernel may hand the memory to
    // another entry meanwhile: it is read once, and what was read must fit its seal.
    scratch.affinity = unsafe {
        Affinity {
            backend: ptr::read_volatile(&raw const (*pointer).backend),
            seal: ptr::read_volatile(&raw const (*pointer).seal),
            backend_id: ptr::read_volatile(&raw const (*pointer).backend_id),
            generation: ptr::read_volatile(&raw const (*pointer).generation),
            last_used: ptr::read_volatile(&raw const (*pointer).last_used),
            backend_port: ptr::read_volatile(&raw const (*pointer).backend_port),
            pad: 0,
        }
    };
    let entry = &scratch.affinity;
    let now = ticks();
    let age = now.wrapping_sub(entry.last_used);
    if !entry.is_of(&scratch.affinity_key) || age > timeout_seconds.saturating_mul(maps::ticks_per_second()) {
        return false;
    }
    let state = maps::backend_state(entry.backend_id);
    if state.generation() != entry.generation || !matches!(state.liveness(), Liveness::Live) {
        return false;
    }
    // SAFETY: as above. If the memory is another entry's by now, that one was made just now, too.
    unsafe { ptr::write_volatile(&raw mut (*pointer).last_used, now) };
    scratch.choice = Choice {
        address: entry.backend,
        port: entry.backend_port,
        backend_id: entry.backend_id,
        generation: entry.generation,
        service,
    };
    true
}

/// Notes what was chosen for this client.
#[inline(always)]
pub(crate) fn note(scratch: &mut Scratch, client: &Address) {
    let choice = &scratch.choice;
    scratch.affinity_key = AffinityKey::new(choice.service, *client);
    scratch.affinity = Affinity {
        backend: choice.address,
        seal: 0,
        backend_id: choice.backend_id,
        generation: choice.generation,
        last_used: ticks(),
        backend_port: choice.port,
        pad: 0,
    }
    .sealed(&scratch.affinity_key);
    maps::insert_affinity(&scratch.affinity_key, &scratch.affinity);
}
