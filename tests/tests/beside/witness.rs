//! Counts what passes mcs-proxy untouched and comes to kube-proxy: packets that still have a Service's address, of pods and
//! of the node's own processes.

use crate::stage::vips;
use anyhow::{Context, Result};
use mcs_proxy_tests::{Namespace, Node};
use std::fmt::Write;

pub(crate) struct Witness(Namespace);

/// What passed so far, both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) syns: u64,
    pub(crate) datagrams: u64,
}

impl Passed {
    pub(crate) const fn and(self, other: Self) -> Self {
        Self { syns: self.syns + other.syns, datagrams: self.datagrams + other.datagrams }
    }
}

impl Witness {
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let mut rules = "add table inet witness; add counter inet witness syns; \
            add counter inet witness datagrams; \
            add chain inet witness passing { type filter hook prerouting priority raw; }; \
            add chain inet witness leaving { type filter hook output priority raw; }; "
            .to_owned();
        for vip in vips() {
            let family = if vip.is_ipv4() { "ip" } else { "ip6" };
            for chain in ["passing", "leaving"] {
                let to = format!("add rule inet witness {chain} {family} daddr {}", vip.ip());
                write!(rules, "{to} tcp flags & (syn | ack) == syn counter name syns; ")?;
                write!(rules, "{to} meta l4proto udp counter name datagrams; ")?;
            }
        }
        node.namespace.nft(&rules)?;
        Ok(Self(node.namespace.clone()))
    }

    pub(crate) fn passed(&self) -> Result<Passed> {
        let packets = |counter: &str| {
            let text = self.0.nft(&format!("list counter inet witness {counter}"))?;
            let (_, rest) = text.split_once("packets ").with_context(|| text.clone())?;
            let number = rest.split_whitespace().next().with_context(|| text.clone())?;
            anyhow::Ok(number.parse()?)
        };
        Ok(Passed { syns: packets("syns")?, datagrams: packets("datagrams")? })
    }
}
