//! What the programs have counted for single backends.

use super::{
    pins::{PinDir, PinsError},
    sys::Access,
};
use aya::maps::{MapData, MapError, PerCpuArray};
use mcs_proxy_ebpf::abi::{BackendCounters as Counters, MapName};
use std::fmt;

/// The map `backend_counters`, for reading.
pub struct BackendCounters(PerCpuArray<MapData, Counters>);

impl BackendCounters {
    /// # Errors
    /// It is not pinned there.
    pub fn open(dir: &PinDir) -> Result<Self, PinsError> {
        dir.open_as(MapName::BackendCounters, Access::ReadOnly).map(Self)
    }

    /// Summed over the CPUs; each count wraps.
    ///
    /// # Errors
    /// There is no such backend.
    pub fn of(&self, backend: u32) -> Result<Counters, MapError> {
        let cpus = self.0.get(&backend, 0)?;
        Ok(cpus.iter().fold(Counters::default(), |sum, cpu| Counters {
            flows: sum.flows.wrapping_add(cpu.flows),
            first_replies: sum.first_replies.wrapping_add(cpu.first_replies),
            connects: sum.connects.wrapping_add(cpu.connects),
            pad: 0,
            bytes: sum.bytes.wrapping_add(cpu.bytes),
        }))
    }
}

impl fmt::Debug for BackendCounters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // aya's arrays have no Debug.
        formatter.debug_tuple("BackendCounters").finish_non_exhaustive()
    }
}
