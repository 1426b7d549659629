//! The maps, and how they change.
//!
//! [`Table`](table::Table) knows what the maps hold and turns a new [`Desired`](crate::desired::Desired) into one
//! [`Transaction`]: an ordered list of [`Operation`]s, each of which leaves the maps consistent for the programs
//! that read them meanwhile. A [`Dataplane`] carries it out: the kernel's maps in production, a stateful fake in
//! unit tests.

pub mod audit;
pub mod counters;
mod dump;
pub mod ended;
pub mod fake;
pub mod filters;
pub mod flows;
pub mod growth;
pub mod hairpin;
pub mod hops;
pub mod interfaces;
pub mod kernel;
pub mod layouts;
pub mod leftovers;
pub mod links;
pub mod loader;
pub mod pins;
pub mod ring;
pub mod sock_diag;
pub mod sockets;
pub mod stranded;
pub mod sys;
pub mod table;
mod windows;

pub use dump::{Dump, FlowRef, frontend_key, service_key};

use mcs_proxy_ebpf::abi::{Address, BackendState, Element, ServiceKey, VipFlags};

/// One step of a change. Steps are carried out in order and none is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Write elements of `backends` that no frontend points to.
    WriteExtent { first: u32, elements: Vec<Element> },
    /// Make a frontend point to the extent whose header is element `extent`; 0: to nothing. One 8-byte store.
    Publish { frontend: u32, extent: u32 },
    /// Enter a VIP, port and protocol. The frontend is already published.
    InsertService { key: ServiceKey, frontend: u32 },
    /// Take one out. Programs may still use the frontend until a grace period is over.
    RemoveService { key: ServiceKey },
    /// Say whether any frontend has this address, so that it answers echo requests, and what else holds for it; `None`:
    /// none has. Done twice, it is done.
    SetVip { vip: Address, flags: Option<VipFlags> },
    /// Say whether a backend is live.
    SetBackendState { backend: u32, state: BackendState },
    /// Set one word of `hot`.
    SetHot { word: u32, bits: u64 },
    /// Start a service id's counters and cursor from zero, before its first use.
    ResetService { service: u32 },
    /// Start a backend id's counters from zero, before its next use. (Before the first one they are zero.)
    ResetBackend { backend: u32 },
    /// Someone has waited, as for [`Operation::GracePeriod`], since before the last step that was carried out.
    GracePeriodOver,
    /// Wait until no program runs that began before this step. After it, what earlier steps let go of may be used
    /// again: the kernel reuses freed hash elements at once, and a program may hold on to what it has looked up.
    GracePeriod,
}

/// A change of the maps.
pub type Transaction = Vec<Operation>;

/// Something that holds the maps.
pub trait Dataplane {
    /// Carries out the operations in order, but for those that nothing depends on, which may wait for one another; stops at
    /// the first that fails, which the error names.
    ///
    /// After a failure the [`Table`](table::Table) that planned the transaction no longer knows what the maps
    /// hold: make a new one from [`Dataplane::dump`].
    fn run(&mut self, transaction: &[Operation]) -> Result<(), DataplaneError>;

    /// What the maps hold now, for [`Table::recover`](table::Table::recover).
    fn dump(&self) -> Result<Dump, DataplaneError>;
}

/// An operation failed. Nothing after it was done; nothing before it was undone, and every prefix of a transaction
/// leaves the maps consistent.
#[derive(Debug, thiserror::Error)]
#[error("map `{map}`: {action}: {source}")]
pub struct DataplaneError {
    pub map: &'static str,
    /// What was attempted, with the key or index.
    pub action: String,
    pub source: std::io::Error,
}
