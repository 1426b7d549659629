//! The real kube-proxy of a node.

use crate::{Namespace, Node, Process, api::ApiServer, cleanup, namespace::run, programs};
use anyhow::{Result, bail, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of the Service `kubernetes`, which an API server makes for itself.
const OF_EVERY_CLUSTER: &str = "kubernetes:https";

/// Which part of netfilter it programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    Nftables,
    Iptables,
}

/// A kube-proxy in a node's network namespace. Dropping it ends it; its rules stay, as they do when it crashes.
#[derive(Debug)]
pub struct KubeProxy {
    process: Process,
    mode: ProxyMode,
    node: Namespace,
}

impl KubeProxy {
    /// Starts it for a node that the API server knows by name and addresses ([`ApiServer::enter_node`]), and waits
    /// until it has programmed the Services that are there.
    ///
    /// # Errors
    /// It does not get there; the error has its log.
    pub fn start(api: &ApiServer, node: &Node, mode: ProxyMode) -> Result<Self> {
        let mut proxy = Self::launch(api, node, mode)?;
        proxy.wait("the Service `kubernetes`", |proxy| Ok(!proxy.endpoints(OF_EVERY_CLUSTER)?.is_empty()))?;
        Ok(proxy)
    }

    /// As [`start`](Self::start), without the wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(api: &ApiServer, node: &Node, mode: ProxyMode) -> Result<Self> {
        Self::beside(&api.kubeconfig(), node, mode)
    }

    pub(crate) fn beside(kubeconfig: &Path, node: &Node, mode: ProxyMode) -> Result<Self> {
        let namespace = &node.namespace;
        let pod_ranges: Vec<_> = node.pod_ranges.iter().map(ToString::to_string).collect();
        let process = namespace.spawn(
            &format!("{}-kube-proxy", namespace.name()),
            &programs::kubernetes("kube-proxy")?,
            &[
                "--kubeconfig",
                &kubeconfig.display().to_string(),
                "--proxy-mode",
                mode.name(),
                "--cluster-cidr",
                &pod_ranges.join(","),
                "--hostname-override",
                &node.name,
                "--healthz-bind-address",
                "127.0.0.1:10256",
                // These are the machine's, not the namespace's.
                "--conntrack-max-per-core",
                "0",
                "--conntrack-tcp-timeout-established",
                "0",
                "--conntrack-tcp-timeout-close-wait",
                "0",
            ],
        )?;
        Ok(Self { process, mode, node: namespace.clone() })
    }

    /// Stops it, as SIGSTOP does, or lets it go on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.process.pause(paused)
    }

    /// Waits until it serves all these addresses, and returns them in the order of [`vips`](Self::vips).
    ///
    /// # Errors
    /// It does not get there.
    pub fn wait_for_vips(&self, wanted: &[SocketAddr], patience: Duration) -> Result<Vec<SocketAddr>> {
        let wanted: BTreeSet<_> = wanted.iter().copied().collect();
        let start = Instant::now();
        loop {
            cleanup::stop_if_interrupted();
            let mut served = self.vips()?;
            served.retain(|vip| wanted.contains(vip));
            if served.len() == wanted.len() {
                return Ok(served);
            }
            ensure!(
                start.elapsed() < patience,
                "kube-proxy serves {} of {} Services after {patience:?}",
                served.len(),
                wanted.len()
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The ClusterIPs (IPv4, TCP) of Services with endpoints. Of iptables in the order of its rules, in which a new
    /// connection goes through them; nftables looks them up.
    ///
    /// # Errors
    /// Its rules cannot be listed.
    pub fn vips(&self) -> Result<Vec<SocketAddr>> {
        let list = |program: &str, arguments: &[&str]| run(self.node.command(program)?.args(arguments));
        match self.mode {
            ProxyMode::Nftables if list("nft", &["list", "tables"])?.contains("table ip kube-proxy") => {
                let map = list("nft", &["list", "map", "ip", "kube-proxy", "service-ips"])?;
                Ok(map.split(['{', ',']).filter_map(map_vip).collect())
            }
            ProxyMode::Nftables => Ok(Vec::new()),
            ProxyMode::Iptables => {
                Ok(list("iptables-save", &["-t", "nat"])?.lines().filter_map(rule_vip).collect())
            }
        }
    }

    /// Waits until it sends new connections to a Service's port, `serve:http` of the namespace `default`, to these
    /// endpoints and no others.
    ///
    /// # Errors
    /// It does not get there; the error has its rules.
    pub fn wait_for_endpoints(&mut self, port: &str, endpoints: &[SocketAddr]) -> Result<()> {
        let wanted = endpoints.iter().copied().collect();
        self.wait(&format!("endpoints {endpoints:?} of {port}"), |proxy| Ok(proxy.endpoints(port)? == wanted))
    }

    /// Where it sends new connections to a Service's port, `serve:http` or, if the port has no name, `serve`.
    ///
    /// # Errors
    /// Its rules cannot be listed.
    pub fn endpoints(&self, port: &str) -> Result<BTreeSet<SocketAddr>> {
        let name = if port.contains(':') { port.to_owned() } else { format!("{port}:") };
        Ok(self.all_endpoints()?.remove(&name).unwrap_or_default())
    }

    /// Where it sends new connections to the ports of all Services of the namespace `default` that have endpoints, by
    /// `serve:http`, or `serve:` if the port has no name.
    ///
    /// # Errors
    /// Its rules cannot be listed.
    pub fn all_endpoints(&self) -> Result<BTreeMap<String, BTreeSet<SocketAddr>>> {
        let rules = self.rules()?;
        Ok(match self.mode {
            ProxyMode::Nftables => nftables_endpoints(&rules),
            ProxyMode::Iptables => iptables_endpoints(&rules),
        })
    }

    /// Everything it has programmed, as `nft` and `iptables-save` list it.
    ///
    /// # Errors
    /// They fail.
    pub fn rules(&self) -> Result<String> {
        let list = |program: &str, arguments: &[&str]| run(self.node.command(program)?.args(arguments));
        match self.mode {
            ProxyMode::Nftables => list("nft", &["list", "ruleset"]),
            ProxyMode::Iptables => Ok([list("iptables-save", &[])?, list("ip6tables-save", &[])?].concat()),
        }
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        loop {
            cleanup::stop_if_interrupted();
            let running = self.process.is_running()?;
            if done(self)? {
                return Ok(());
            }
            if !running || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.process.log())?;
                bail!("kube-proxy has not programmed {what}; its rules:\n{}\nits log:\n{log}", self.rules()?);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl ProxyMode {
    /// As `--proxy-mode` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Of a listing with
///
/// ```text
/// chain service-KTWJZ4EW-default/serve/tcp/http {
///     meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.10.0.6 . 8080, 1 : 10.12.0.6 . 8080 }
/// }
/// ```
///
/// or, with a single endpoint, `dnat ip to 10.10.0.6:8080`: the endpoints, by `serve:http`.
fn nftables_endpoints(rules: &str) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let endpoint = |word: &str| {
        let Some((address, port)) = word.split_once('/') else { return word.parse().ok() };
        Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
    };
    let mut all: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    for (chain, text) in rules.split("\tchain ").skip(1).filter_map(|text| text.split_once(" {")) {
        // `local-` with `internalTrafficPolicy: Local`.
        let Some(chain) = chain.strip_prefix("service-").or_else(|| chain.strip_prefix("local-")) else {
            continue;
        };
        let mut name = chain.split_once('-').map_or("", |(_, name)| name).split('/');
        let [Some("default"), Some(service), Some(_protocol), port] = [(); 4].map(|()| name.next()) else {
            continue;
        };
        let body = text[..text.find("\n\t}").unwrap_or(text.len())].replace(" . ", "/").replace(',', " ");
        let endpoints = all.entry(format!("{service}:{}", port.unwrap_or_default())).or_default();
        endpoints.extend(body.split_whitespace().filter_map(endpoint));
    }
    all
}

/// `10.13.181.116 . tcp . 80 : goto service-KTWJZ4EW-default/serve/tcp/http`
fn map_vip(element: &str) -> Option<SocketAddr> {
    let (address, port) = element.trim().split_once(" . tcp . ")?;
    Some(SocketAddr::new(address.parse().ok()?, port.split(' ').next()?.parse().ok()?))
}

/// `-A KUBE-SERVICES -d 10.13.181.116/32 -p tcp -m comment --comment "…" -m tcp --dport 80 -j KUBE-SVC-NPX46M4PTMTKRN6Y`
fn rule_vip(line: &str) -> Option<SocketAddr> {
    let rule = line.strip_prefix("-A KUBE-SERVICES -d ")?;
    let (address, rest) = rule.split_once("/32 -p tcp ")?;
    let (port, _) = rest.split_once("--dport ")?.1.split_once(" -j KUBE-SVC-")?;
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

/// Of a listing with
///
/// ```text
/// -A KUBE-SERVICES -d 10.13.0.5/32 -p tcp -m comment --comment "default/serve:http cluster IP" … -j KUBE-SVC-NPX46M4PTMTKRN6Y
/// -A KUBE-SVC-NPX46M4PTMTKRN6Y -m statistic --mode random --probability 0.5 -j KUBE-SEP-Q3HNNZPXUAYYDXW2
/// -A KUBE-SEP-Q3HNNZPXUAYYDXW2 -p tcp -m tcp -j DNAT --to-destination 10.10.0.6:8080
/// ```
///
/// the endpoints, by `serve:http`. With many endpoints the other rules have no comments. A chain is named after the
/// port, for both families the same; `KUBE-SVL-` with `internalTrafficPolicy: Local`.
fn iptables_endpoints(rules: &str) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut names = BTreeMap::new();
    let mut destinations: BTreeMap<&str, SocketAddr> = BTreeMap::new();
    let mut jumps = Vec::new();
    for rule in rules.lines().filter_map(|line| line.strip_prefix("-A ")) {
        let Some((chain, rest)) = rule.split_once(' ') else { continue };
        let after = |option: &str| {
            let (_, value) = rest.split_once(option)?;
            value.split_whitespace().next()
        };
        if chain == "KUBE-SERVICES"
            && let Some((_, comment)) = rest.split_once("--comment \"default/")
            && let Some((port, _)) = comment.split_once(" cluster IP\"")
            && let Some(target) = after("-j ")
        {
            names.insert(target, if port.contains(':') { port.to_owned() } else { format!("{port}:") });
        } else if chain.starts_with("KUBE-SEP-")
            && let Some(destination) = after("--to-destination ").and_then(|text| text.parse().ok())
        {
            destinations.insert(chain, destination);
        } else if (chain.starts_with("KUBE-SVC-") || chain.starts_with("KUBE-SVL-"))
            && let Some(endpoint) = after("-j KUBE-SEP-")
        {
            jumps.push((chain, endpoint));
        }
    }
    let mut all: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    for (chain, endpoint) in jumps {
        let destination = destinations.get(format!("KUBE-SEP-{endpoint}").as_str());
        if let (Some(name), Some(destination)) = (names.get(chain), destination) {
            all.entry(name.clone()).or_default().insert(*destination);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vips_are_read_from_rules_with_and_without_comments() {
        let vip = Some("10.13.181.116:80".parse().unwrap());
        assert_eq!(map_vip(" 10.13.181.116 . tcp . 80 : goto service-KTWJZ4EW-default/serve/tcp/http"), vip);
        assert_eq!(
            rule_vip("-A KUBE-SERVICES -d 10.13.181.116/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-NPX"),
            vip
        );
        let comment = "-m comment --comment \"default/serve:http cluster IP\"";
        let rule = format!(
            "-A KUBE-SERVICES -d 10.13.181.116/32 -p tcp {comment} -m tcp --dport 80 -j KUBE-SVC-NPX"
        );
        assert_eq!(rule_vip(&rule), vip);
        assert_eq!(rule_vip("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"), None);
        assert_eq!(map_vip("10.13.181.116 . udp . 80 : goto service-A-default/serve/udp/dns"), None);
    }
}
