//! The names that belong to what the maps hold.
//!
//! The maps know addresses and ids; which Service, cluster and slice they stand for, and which endpoints were left
//! out and why, the daemon writes to `catalog.jsonl` in its run directory, after every change of the maps. So the
//! command line can tell names while no daemon runs. The maps are the truth: a name is only ever put beside what they
//! hold.
//!
//! With ten thousand Services the file has 16 MB. So a change appends a line for each frontend that it changed, and once
//! there are more old lines than new ones the file is made anew beside the old one.

mod file;
mod journal;
#[cfg(test)]
mod journal_tests;

use crate::desired::{EndpointVerdict, FrontendKey};
pub use file::{CatalogFile, Put};
pub use journal::{Batch, Journal};
use mcs_proxy_ebpf::abi::Protocol;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// In the run directory.
pub const FILE: &str = "catalog.jsonl";

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// This cluster's name: the first line.
    Cluster(String),
    /// A frontend as it is now.
    Frontend(CatalogFrontend),
    /// One that is no longer there.
    Gone(FrontendName),
}

/// What a client calls.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FrontendName {
    vip: IpAddr,
    port: u16,
    protocol: String,
}

/// All frontends, by VIP, port and protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// This cluster's name.
    pub cluster: String,
    pub frontends: Vec<CatalogFrontend>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogFrontend {
    pub vip: IpAddr,
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub namespace: String,
    pub name: String,
    pub port_name: String,
    /// `round-robin`, `random` or `maglev`; empty in catalogs of earlier versions.
    #[serde(default)]
    pub algorithm: String,
    /// Sockets that call it are left to the packet path.
    #[serde(default)]
    pub packets_only: bool,
    pub endpoints: Vec<CatalogEndpoint>,
    /// Which tier of `mcs-proxy.io/clusters` takes the new flows, counted from 1; none: all of them together, or the
    /// Service has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_tier: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogEndpoint {
    pub address: IpAddr,
    pub port: u16,
    pub cluster: String,
    pub slice: String,
    pub verdict: String,
    /// Its slots on the wheel; with Maglev, before the table is made of them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub slots: u32,
    /// The tier of its cluster, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<usize>,
}

impl FrontendName {
    /// As [`CatalogFrontend::key`].
    pub(super) fn key(&self) -> Option<FrontendKey> {
        Some(FrontendKey { vip: self.vip, port: self.port, protocol: protocol_of(&self.protocol)? })
    }
}

impl CatalogFrontend {
    /// `None`: no Service may have its protocol.
    #[must_use]
    pub fn key(&self) -> Option<FrontendKey> {
        Some(FrontendKey { vip: self.vip, port: self.port, protocol: protocol_of(&self.protocol)? })
    }

    /// `NAMESPACE/NAME`.
    #[must_use]
    pub fn service(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The endpoint of this address; of several (duplicates), the one that takes new flows.
    #[must_use]
    pub fn endpoint(&self, address: SocketAddr) -> Option<&CatalogEndpoint> {
        self.endpoints
            .iter()
            .filter(|endpoint| SocketAddr::new(endpoint.address, endpoint.port) == address)
            .min_by_key(|endpoint| !endpoint.is_used())
    }

    /// The cluster whose pod a backend is.
    #[must_use]
    pub fn cluster_of(&self, backend: SocketAddr) -> Option<String> {
        self.endpoint(backend).map(|endpoint| endpoint.cluster.clone())
    }
}

impl CatalogEndpoint {
    /// Whether it takes new flows.
    #[must_use]
    pub fn is_used(&self) -> bool {
        [EndpointVerdict::Used, EndpointVerdict::UsedTerminating]
            .iter()
            .any(|used| self.verdict == used.as_str())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_none(slots: &u32) -> bool {
    *slots == 0
}

/// The name of a protocol in manifests.
#[must_use]
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// The protocol of a name in manifests.
#[must_use]
pub fn protocol_of(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|&protocol| protocol_name(protocol) == name)
}

impl Catalog {
    /// The catalog that the last daemon of this run directory wrote; an empty one if none did.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn read(run_dir: &Path) -> io::Result<Self> {
        match fs::read_to_string(run_dir.join(FILE)) {
            Ok(text) => Ok(Self::of_lines(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}
