//! What serves a Service where mcs-proxy does not: a few nftables rules in kube-proxy's place and manner.

use crate::{Namespace, POD_PORT};
use anyhow::{Context, Result};
use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

/// Destination translation in one node's namespace, endpoints at random, with a count of connections.
#[derive(Debug)]
pub struct Beneath {
    namespace: Namespace,
    table: String,
    service: SocketAddr,
}

impl Beneath {
    /// # Errors
    /// nft refuses the rules.
    pub fn new(node: &Namespace, service: SocketAddr, endpoints: &[IpAddr]) -> Result<Self> {
        let family = if service.is_ipv4() { "ip" } else { "ip6" };
        let beneath = Self { namespace: node.clone(), table: format!("{family} beneath"), service };
        let Self { namespace, table, .. } = &beneath;
        namespace.nft(&format!(
            "add table {table}; \
             add counter {table} served; \
             add chain {table} service; \
             add chain {table} prerouting {{ type nat hook prerouting priority dstnat; }}; \
             add rule {table} prerouting {family} daddr {} meta l4proto {{ tcp, udp }} th dport {} goto service",
            service.ip(),
            service.port(),
        ))?;
        beneath.set_endpoints(endpoints)?;
        Ok(beneath)
    }

    /// Exchanges the endpoints at once.
    ///
    /// # Errors
    /// nft refuses the rules.
    pub fn set_endpoints(&self, endpoints: &[IpAddr]) -> Result<()> {
        let table = &self.table;
        let mut rules =
            format!("flush chain {table} service; add rule {table} service counter name served; ");
        for (index, endpoint) in endpoints.iter().enumerate() {
            let remaining = endpoints.len() - index;
            let endpoint = SocketAddr::new(*endpoint, POD_PORT);
            // The first of n with 1/n, the next of the rest with 1/(n-1), …: all alike.
            write!(
                rules,
                "add rule {table} service meta l4proto {{ tcp, udp }} numgen random mod {remaining} 0 dnat to {endpoint}; "
            )?;
        }
        self.namespace.nft(&rules).map(drop)
    }

    /// How many connections have come this way.
    ///
    /// # Errors
    /// nft's words are not understood.
    pub fn served(&self) -> Result<u64> {
        let text = self.namespace.nft(&format!("list counter {} served", self.table))?;
        let mut words = text.split_whitespace().skip_while(|&word| word != "packets").skip(1);
        words.next().and_then(|number| number.parse().ok()).with_context(|| text.clone())
    }

    pub fn service(&self) -> SocketAddr {
        self.service
    }
}
