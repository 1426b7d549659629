//! Pods on one bridge, as bridge CNI plugins set them up.

use crate::{Namespace, Node, Pod};
use anyhow::{Context, Result};
use ipnet::IpNet;
use std::{fs, net::IpAddr};

/// What [`Node::add_bridge`] calls it.
pub const BRIDGE: &str = "cni0";

impl Node {
    /// Makes the pods' interfaces ports of a bridge, which has the first address of each pod range and is the pods'
    /// gateway; the pods find one another on the link.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_bridge(&self, pods: &[&Pod]) -> Result<()> {
        let host = &self.namespace;
        host.ip(&format!("link add {BRIDGE} type bridge"))?;
        for range in &self.pod_ranges {
            let nodad = if gateway(*range).is_ipv4() { "" } else { "nodad" };
            let length = range.prefix_len();
            host.ip(&format!("address add {}/{length} dev {BRIDGE} {nodad}", gateway(*range)))?;
        }
        host.ip(&format!("link set {BRIDGE} up"))?;
        pods.iter().try_for_each(|pod| self.put_on_bridge(pod))
    }

    fn put_on_bridge(&self, pod: &Pod) -> Result<()> {
        let (host, port, inside) = (&self.namespace, &pod.host_interface, &pod.namespace);
        host.ip(&format!("address flush dev {port}"))?;
        host.sysctl(&format!("net/ipv4/conf/{port}/proxy_arp"), "0")?;
        host.ip(&format!("link set {port} master {BRIDGE}"))?;
        inside.ip("route flush dev eth0")?;
        inside.ip("-6 route del default")?;
        inside.ip("address flush dev eth0 scope global")?;
        for address in &pod.addresses {
            let range = self.pod_ranges.iter().find(|range| range.contains(address));
            let range = range.with_context(|| format!("{address} is in no range of {}", self.name))?;
            let (family, nodad) = if address.is_ipv4() { ("-4", "") } else { ("-6", "nodad") };
            inside.ip(&format!("address add {address}/{} dev eth0 {nodad}", range.prefix_len()))?;
            host.ip(&format!("{family} route del {address} dev {port}"))?;
            inside.ip(&format!("{family} route add default via {} dev eth0", gateway(*range)))?;
        }
        Ok(())
    }

    /// Whether bridged packets go through iptables too: `0` or `1`.
    ///
    /// # Errors
    /// The kernel lacks `br_netfilter`.
    pub fn set_bridge_netfilter(&self, value: &str) -> Result<()> {
        ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
            .iter()
            .try_for_each(|name| self.namespace.sysctl(&format!("net/bridge/{name}"), value))
            .context("is br_netfilter loaded?")
    }
}

fn gateway(range: IpNet) -> IpAddr {
    match range.trunc().addr() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + 1).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + 1).into()),
    }
}

impl Namespace {
    /// The reverse path filter of IPv4: `0` off, `1` strict, `2` loose. It is set for interfaces that come later and for
    /// these; the larger of an interface's own and that of all counts.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn set_reverse_path_filter(&self, value: &str, interfaces: &[&str]) -> Result<()> {
        let all = ["all", "default"].iter().chain(interfaces);
        all.copied().try_for_each(|name| self.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), value))
    }

    /// ICMP redirects that were received here, of both versions.
    ///
    /// # Errors
    /// The kernel does not count them.
    pub fn redirects_received(&self) -> Result<u64> {
        Ok(self.icmp_counter("InRedirects")? + self.icmp6_counter("Icmp6InRedirects")?)
    }

    /// ICMP redirects that were sent from here, of both versions.
    ///
    /// # Errors
    /// The kernel does not count them.
    pub fn redirects_sent(&self) -> Result<u64> {
        Ok(self.icmp_counter("OutRedirects")? + self.icmp6_counter("Icmp6OutRedirects")?)
    }

    /// From the line pairs `Icmp: InMsgs …` and `Icmp: 7 …`.
    fn icmp_counter(&self, wanted: &str) -> Result<u64> {
        let text = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let mut lines = text.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_whitespace);
        let (names, values) = lines.next().zip(lines.next()).context("no Icmp in /proc/net/snmp")?;
        let mut counters = names.zip(values);
        let (_, value) = counters.find(|(name, _)| *name == wanted).with_context(|| wanted.to_owned())?;
        Ok(value.parse()?)
    }

    fn icmp6_counter(&self, wanted: &str) -> Result<u64> {
        let text = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp6"))?;
        let mut lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let (_, value) = lines.find(|(name, _)| *name == wanted).with_context(|| wanted.to_owned())?;
        Ok(value.trim().parse()?)
    }
}
