use super::NamespacedName;
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use std::net::IpAddr;

/// A Service that has ClusterIPs, as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: NamespacedName,
    /// `metadata.creationTimestamp`, seconds since the epoch; of two Services with one VIP and port the older wins.
    pub created: i64,
    pub opt_in: OptIn,
    /// `spec.clusterIPs`; empty for headless and ExternalName Services.
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// `mcs-proxy.io/algorithm`; `None`: the daemon's default.
    pub algorithm: Option<Algorithm>,
    pub session_affinity: SessionAffinity,
    /// Has node ports, external IPs or load balancer addresses, which mcs-proxy does not serve.
    pub externally_exposed: bool,
}

/// What the object itself says about being served by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptIn {
    /// `mcs-proxy.io/enabled: "true"`: ours, with kube-proxy beneath.
    Annotation,
    /// `service.kubernetes.io/service-proxy-name: mcs-proxy`: ours alone.
    ProxyName,
    /// Neither: ours only under `--all-services`.
    Unsaid,
    /// `mcs-proxy.io/enabled: "false"`: never ours.
    Refused,
    /// `service.kubernetes.io/service-proxy-name` names another proxy: never ours.
    OtherProxy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for the only port of a Service; the name by which slices give the target.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAffinity {
    None,
    ClientIp { timeout_seconds: u32 },
}
