//! Why a Service's traffic goes where it goes: every endpoint with its slice, cluster, conditions and verdict, and
//! whether the maps hold what follows from it.
//!
//! [`answer`] is a pure function of what the daemon knows. The daemon gives it over its socket, the command line works
//! it out by itself from a directory of manifests, and where the kernel's maps can be read, [`compare`] adds what they
//! hold. The types here are the JSON and YAML of `mcs-proxy explain`: a contract, to which fields are only added.

mod answer;
mod maps;
mod names;
mod offline;
mod query;

pub use answer::{Known, answer};
pub use maps::{Held, HeldBackend, Wanted, compare, differences};
pub use names::from_names;
pub use offline::{Offline, offline};
pub use query::{BadQuery, Client, Query, Target};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// All of `mcs-proxy explain -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// This cluster's name; empty if nobody has said it.
    pub cluster: String,
    /// This node's name, if it is known.
    pub node: Option<String>,
    /// Who says so: `daemon`, `manifests`, or `names` (no daemon answers: the names that the last one left beside the
    /// maps).
    pub told_by: String,
    pub namespace: String,
    pub name: String,
    /// Whether mcs-proxy serves it.
    pub served: bool,
    /// By what it was opted in, or why it is not served.
    pub because: String,
    /// What is wrong with the Service and with its slices, a sentence each.
    pub problems: Vec<String>,
    pub frontends: Vec<ExplainedFrontend>,
    /// Frontends that the maps hold at the Service's addresses, and that should not be there: `TCP 10.13.181.116:81`.
    pub strays: Vec<String>,
}

/// One port of the Service at one of its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedFrontend {
    pub vip: IpAddr,
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub port_name: String,
    /// `round-robin`, `random` or `maglev`; empty if unknown.
    pub algorithm: String,
    /// ClientIP affinity's timeout; 0: none.
    pub affinity_seconds: u32,
    /// Sockets that call it are left to the packet path (`mcs-proxy.io/socket-path: "false"`).
    #[serde(default)]
    pub packets_only: bool,
    /// Which tier takes the new flows, from 1 on; absent if all do, or without `mcs-proxy.io/clusters`.
    pub active_tier: Option<u32>,
    /// The Service that has this address and port instead, by `NAMESPACE/NAME`: nothing else is told then.
    pub lost_to: Option<String>,
    /// In the order of the wheel, then what is left out.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// If `--client` was given.
    pub flow: Option<ExplainedFlow>,
    /// Absent where there are no maps to look at.
    pub maps: Option<ExplainedMaps>,
}

/// An endpoint that a slice lists for the frontend's port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedEndpoint {
    pub address: IpAddr,
    pub port: u16,
    /// Name of the EndpointSlice, in the Service's namespace.
    pub slice: String,
    /// Seconds since the slice last changed, as far as its metadata tell.
    pub age_seconds: Option<u64>,
    /// Who wrote the slice.
    pub importer: Option<String>,
    /// The cluster whose pod it is.
    pub cluster: String,
    /// Of that cluster.
    pub node: Option<String>,
    /// Of that cluster.
    pub zone: Option<String>,
    /// Absent if unknown.
    pub conditions: Option<Conditions>,
    /// From 1 on, as `mcs-proxy.io/clusters` orders them; absent without that annotation.
    pub tier: Option<u32>,
    /// Slots on the wheel.
    pub slots: u32,
    /// Of the frontend's new flows, from 0 to 1.
    pub share: f64,
    /// As `mcs-proxy services` says it.
    pub verdict: String,
    /// The same in a sentence.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// What becomes of a client's flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedFlow {
    /// `10.12.0.9` or `10.12.0.9:40000`.
    pub client: String,
    /// Where a new flow goes, in words.
    pub next: String,
    /// Its flows that the maps hold: `established with 10.10.0.6:8080, silent for 3s`.
    pub open: Vec<String>,
}

/// What the maps hold for the frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedMaps {
    /// Whether that is what should be there.
    pub agree: bool,
    /// In words; where they differ, in what.
    pub says: String,
}
