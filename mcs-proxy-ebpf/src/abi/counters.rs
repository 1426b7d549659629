//! Per-CPU counters; a reader adds up the CPUs. They only ever grow.

/// Value of `service_counters`, by service id. Bytes are counted from the IP header on, as `ipvsadm --stats` does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ServiceCounters {
    pub flows: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Value of `backend_counters`, by backend id. Small, because there is one for every CPU and backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BackendCounters {
    pub flows: u32,
    /// Flows that the backend has answered.
    pub first_replies: u32,
    /// Connections and first datagrams of the socket path, whose packets and answers we never see. Not in `flows`.
    pub connects: u32,
    pub pad: u32,
    /// Both directions, from the IP header on.
    pub bytes: u64,
}

impl BackendCounters {
    /// Of both paths.
    #[must_use]
    pub const fn new_flows(&self) -> u64 {
        self.flows as u64 + self.connects as u64
    }
}

const _: () = assert!(size_of::<ServiceCounters>() == 40);
const _: () = assert!(size_of::<BackendCounters>() == 24);
