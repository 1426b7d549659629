use super::{MinReady, NamespacedName, Problem, Tiers, keyed::Named};
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use std::{net::IpAddr, sync::Arc};

/// A Service, as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: NamespacedName,
    /// `metadata.creationTimestamp`, seconds since the epoch; of two Services with one VIP and port the older wins.
    /// `i64::MAX` where there is none: an unknown age beats no known one.
    pub created: i64,
    pub opt_in: OptIn,
    /// Whether kube-proxy serves it too. Not with the label `service.kubernetes.io/service-proxy-name`.
    pub kube_proxy_beneath: bool,
    /// `spec.clusterIPs`; empty for headless Services (by `None` or by the label `service.kubernetes.io/headless`), for
    /// ExternalName ones, and as long as there is no address.
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// `mcs-proxy.io/algorithm`; `None`: the daemon's default.
    pub algorithm: Option<Algorithm>,
    /// `mcs-proxy.io/clusters`; `None`: all clusters alike, this one's hints first.
    pub clusters: Option<Tiers>,
    /// `mcs-proxy.io/min-ready`; `None`: 1.
    pub min_ready: Option<MinReady>,
    /// `mcs-proxy.io/socket-path`: whether sockets that call it are translated; `None`: yes, where the daemon does so.
    pub socket_path: Option<bool>,
    pub session_affinity: SessionAffinity,
    pub internal_traffic_policy: TrafficPolicy,
    /// Has node ports, external IPs or load balancer addresses, which mcs-proxy does not serve.
    pub externally_exposed: bool,
    pub malformed: Malformed,
    /// What the decoder found wrong with it. The [`Model`](super::Model) keeps them apart from the object.
    pub problems: Vec<Problem>,
}

impl Named for Service {
    fn key(&self) -> &NamespacedName {
        &self.key
    }
}

impl Service {
    /// Puts `previous`'s values where this one's were malformed: a value that cannot be read changes nothing.
    pub(super) fn keep_last_good_of(&mut self, previous: &Self) {
        let Malformed { opt_in, algorithm, clusters, min_ready, socket_path } = self.malformed;
        // What else may have opted it in, the label, was read well and may have changed.
        if opt_in && matches!(previous.opt_in, OptIn::Annotation | OptIn::Refused) {
            self.opt_in = previous.opt_in;
        }
        if algorithm {
            self.algorithm = previous.algorithm;
        }
        if clusters {
            self.clusters.clone_from(&previous.clusters);
        }
        if min_ready {
            self.min_ready = previous.min_ready;
        }
        if socket_path {
            self.socket_path = previous.socket_path;
        }
    }
}

/// Which values of a Service could not be read. They stand at their defaults until the model puts the last good ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Malformed {
    /// `mcs-proxy.io/enabled`
    pub opt_in: bool,
    /// `mcs-proxy.io/algorithm`
    pub algorithm: bool,
    /// `mcs-proxy.io/clusters`
    pub clusters: bool,
    /// `mcs-proxy.io/min-ready`
    pub min_ready: bool,
    /// `mcs-proxy.io/socket-path`
    pub socket_path: bool,
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
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAffinity {
    None,
    ClientIp { timeout_seconds: u32 },
}

/// `spec.internalTrafficPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    Cluster,
    /// Only endpoints on the client's node.
    Local,
}
