//! What is compared.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arm {
    /// To the pod's own address; no proxy, no netfilter.
    Direct,
    /// The same with programs on mcs-proxy's hooks that do nothing: what the hooks themselves cost.
    Empty,
    KubeProxyNftables,
    KubeProxyIptables,
    /// mcs-proxy's TCX programs.
    Packet,
    /// The same with `--redirect`: past the host's stack.
    Redirect,
    /// mcs-proxy's cgroup programs.
    Socket,
}

impl Arm {
    pub(crate) const ALL: [Self; 7] = [
        Self::Direct,
        Self::Empty,
        Self::KubeProxyNftables,
        Self::KubeProxyIptables,
        Self::Packet,
        Self::Redirect,
        Self::Socket,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Empty => "empty",
            Self::KubeProxyNftables => "kube-proxy-nftables",
            Self::KubeProxyIptables => "kube-proxy-iptables",
            Self::Packet => "packet",
            Self::Redirect => "redirect",
            Self::Socket => "socket",
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
