//! `mcs-proxy stats`: what the counters say, so far or in a second.

use super::{
    align::align,
    view::{Backend, Frontend, View},
};
use crate::{desired::FrontendKey, observe::catalog::protocol_name};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// What `mcs-proxy stats -o json` prints each time. Bytes are counted from the IP header on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Stats {
    /// Of the time that the amounts are a second's share of; absent: they are what was counted so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// By VIP, port and protocol.
    pub(crate) services: Vec<ServiceStats>,
    /// Of all Services together, by name.
    pub(crate) clusters: Vec<ClusterStats>,
}

/// One port of one Service on one VIP. With `--rate` every amount is a second's.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ServiceStats {
    /// Empty if no daemon has said whose VIP this is.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port_name: String,
    pub(crate) vip: IpAddr,
    pub(crate) port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub(crate) protocol: &'static str,
    /// `round-robin`, `random` or `maglev`.
    pub(crate) algorithm: &'static str,
    /// New flows, connections of the socket path included.
    pub(crate) connections: Amount,
    /// From clients; of the socket path, no packet is seen.
    pub(crate) packets_in: Amount,
    /// To clients.
    pub(crate) packets_out: Amount,
    pub(crate) bytes_in: Amount,
    pub(crate) bytes_out: Amount,
    pub(crate) backends: Vec<BackendStats>,
    /// The same by cluster.
    pub(crate) clusters: Vec<ClusterStats>,
}

/// One backend of a frontend.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct BackendStats {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// The cluster whose pod it is; empty if unknown.
    pub(crate) cluster: String,
    pub(crate) connections: Amount,
    /// Connections that it has answered; of the socket path, no answer is seen.
    pub(crate) answered: Amount,
    /// Both directions.
    pub(crate) bytes: Amount,
}

/// All backends of one cluster together.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ClusterStats {
    /// Empty if unknown.
    pub(crate) cluster: String,
    pub(crate) backends: usize,
    pub(crate) connections: Amount,
    pub(crate) answered: Amount,
    /// Both directions.
    pub(crate) bytes: Amount,
}

/// How many so far, or in a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Amount {
    Total(u64),
    PerSecond(f64),
}

impl Amount {
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::Total(count) => count as f64,
            Self::PerSecond(rate) => rate,
        }
    }

    /// As `ipvsadm` shortens what is long: eight digits, then thousands, millions and so on.
    pub(crate) fn short(self) -> String {
        let value = self.value();
        match value {
            0.0..1e8 => format!("{value:.0}"),
            1e8..1e11 => format!("{:.0}K", value / 1e3),
            1e11..1e14 => format!("{:.0}M", value / 1e6),
            _ => format!("{:.0}G", value / 1e9),
        }
    }

    fn add(&mut self, other: Self) {
        *self = match (*self, other) {
            (Self::Total(one), Self::Total(other)) => Self::Total(one.saturating_add(other)),
            (one, other) => Self::PerSecond(one.value() + other.value()),
        };
    }
}

/// From a count, and an earlier one, to what is shown.
#[derive(Clone, Copy)]
struct Scale(Option<f64>);

impl Scale {
    fn amount(self, now: u64, before: u64) -> Amount {
        match self.0 {
            None => Amount::Total(now),
            // Fewer than before: another has the counter by now, and began with nothing.
            Some(seconds) => Amount::PerSecond(now.checked_sub(before).unwrap_or(now) as f64 / seconds),
        }
    }
}

/// What was counted so far.
pub(crate) fn totals(view: &View, service: Option<&str>) -> Stats {
    stats(view, None, service)
}

/// What was counted in a second, between two looks that were so many seconds apart.
pub(crate) fn rates(before: &View, now: &View, seconds: f64, service: Option<&str>) -> Stats {
    stats(now, Some((before, seconds)), service)
}

fn stats(view: &View, earlier: Option<(&View, f64)>, service: Option<&str>) -> Stats {
    let names = view.names();
    let scale = Scale(earlier.map(|(_, seconds)| seconds));
    let before: BTreeMap<FrontendKey, &Frontend> = earlier
        .iter()
        .flat_map(|(view, _)| &view.frontends)
        .map(|frontend| (frontend.key, frontend))
        .collect();
    let mut stats = Stats { seconds: scale.0, ..Stats::default() };
    for frontend in &view.frontends {
        let name = names.get(&frontend.key).copied();
        if service.is_some_and(|wanted| name.is_none_or(|name| name.service() != wanted)) {
            continue;
        }
        let before = before.get(&frontend.key).copied();
        let cluster = |address| name.and_then(|name| name.cluster_of(address)).unwrap_or_default();
        let backends = backends(frontend, before, scale, cluster);
        let (now, then) = (frontend.counters, before.map(|before| before.counters).unwrap_or_default());
        stats.services.push(ServiceStats {
            namespace: name.map(|name| name.namespace.clone()).unwrap_or_default(),
            name: name.map(|name| name.name.clone()).unwrap_or_default(),
            port_name: name.map(|name| name.port_name.clone()).unwrap_or_default(),
            vip: frontend.key.vip,
            port: frontend.key.port,
            protocol: protocol_name(frontend.key.protocol),
            algorithm: frontend.algorithm,
            connections: scale.amount(now.flows, then.flows),
            packets_in: scale.amount(now.packets_in, then.packets_in),
            packets_out: scale.amount(now.packets_out, then.packets_out),
            bytes_in: scale.amount(now.bytes_in, then.bytes_in),
            bytes_out: scale.amount(now.bytes_out, then.bytes_out),
            clusters: by_cluster(&backends),
            backends,
        });
    }
    let all: Vec<BackendStats> =
        stats.services.iter().flat_map(|service| service.backends.iter().cloned()).collect();
    stats.clusters = by_cluster(&all);
    stats
}

fn backends(
    frontend: &Frontend,
    before: Option<&Frontend>,
    scale: Scale,
    cluster: impl Fn(SocketAddr) -> String,
) -> Vec<BackendStats> {
    let earlier = |backend: &Backend| {
        let same = |other: &&Backend| (other.id, other.generation) == (backend.id, backend.generation);
        let found = before.and_then(|before| before.backends.iter().find(same));
        found.map(|found| found.counters).unwrap_or_default()
    };
    frontend
        .backends
        .iter()
        .map(|backend| {
            let (now, then) = (backend.counters, earlier(backend));
            BackendStats {
                address: backend.address.ip(),
                port: backend.address.port(),
                cluster: cluster(backend.address),
                connections: scale.amount(now.new_flows(), then.new_flows()),
                answered: scale.amount(now.first_replies.into(), then.first_replies.into()),
                bytes: scale.amount(now.bytes, then.bytes),
            }
        })
        .collect()
}

fn by_cluster(backends: &[BackendStats]) -> Vec<ClusterStats> {
    let mut clusters = BTreeMap::<&str, ClusterStats>::new();
    for backend in backends {
        let BackendStats { cluster, connections, answered, bytes, .. } = backend;
        match clusters.get_mut(cluster.as_str()) {
            Some(sum) => {
                sum.backends += 1;
                sum.connections.add(*connections);
                sum.answered.add(*answered);
                sum.bytes.add(*bytes);
            }
            None => {
                let first = ClusterStats {
                    cluster: cluster.clone(),
                    backends: 1,
                    connections: *connections,
                    answered: *answered,
                    bytes: *bytes,
                };
                clusters.insert(cluster, first);
            }
        }
    }
    clusters.into_values().collect()
}

/// The name of a Service with its port's.
pub(crate) fn full_name(namespace: &str, name: &str, port_name: &str) -> String {
    match (name, port_name) {
        ("", _) => "-".to_owned(),
        (name, "") => format!("{namespace}/{name}"),
        (name, port) => format!("{namespace}/{name}:{port}"),
    }
}

pub(crate) fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

pub(super) fn table(stats: &Stats) -> String {
    if stats.services.is_empty() {
        return "No frontends; `mcs-proxy services` says why.\n".into();
    }
    let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let (service, backend): ([&str; 8], [&str; 8]) = if stats.seconds.is_some() {
        (
            ["Prot", "VIP:Port", "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS", "Service"],
            ["", "-> Address:Port", "CPS", "", "Answered/s", "", "BPS", "Cluster"],
        )
    } else {
        (
            ["Prot", "VIP:Port", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes", "Service"],
            ["", "-> Address:Port", "Conns", "", "Answered", "", "Bytes", "Cluster"],
        )
    };
    let mut lines = vec![cells(&service), cells(&backend)];
    for row in &stats.services {
        lines.push(vec![
            row.protocol.to_owned(),
            SocketAddr::new(row.vip, row.port).to_string(),
            row.connections.short(),
            row.packets_in.short(),
            row.packets_out.short(),
            row.bytes_in.short(),
            row.bytes_out.short(),
            full_name(&row.namespace, &row.name, &row.port_name),
        ]);
        lines.extend(row.backends.iter().map(|backend| {
            let BackendStats { address, port, cluster, connections, answered, bytes } = backend;
            let name = format!("-> {}", SocketAddr::new(*address, *port));
            amounts(name, *connections, *answered, *bytes, dash(cluster))
        }));
    }
    lines.push(vec![String::new()]);
    lines.push(vec!["All clusters".to_owned()]);
    lines.extend(stats.clusters.iter().map(|row| {
        let name = format!("{} backend{}", row.backends, if row.backends == 1 { "" } else { "s" });
        amounts(name, row.connections, row.answered, row.bytes, dash(&row.cluster))
    }));
    align(&lines)
}

fn amounts(
    name: String,
    connections: Amount,
    answered: Amount,
    bytes: Amount,
    cluster: String,
) -> Vec<String> {
    let none = String::new;
    vec![none(), name, connections.short(), none(), answered.short(), none(), bytes.short(), cluster]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_began_anew_counts_from_zero_and_totals_are_exact() {
        let rate = Scale(Some(2.0));
        assert_eq!(rate.amount(30, 10), Amount::PerSecond(10.0));
        assert_eq!(rate.amount(4, 10), Amount::PerSecond(2.0), "another has the counter");
        assert_eq!(Scale(None).amount(u64::MAX, 7), Amount::Total(u64::MAX));
        assert_eq!(serde_json::to_string(&Amount::Total(u64::MAX)).unwrap(), "18446744073709551615");
        assert_eq!(serde_json::to_string(&Amount::PerSecond(0.5)).unwrap(), "0.5");
    }

    #[test]
    fn what_is_long_is_shortened_as_ipvsadm_does() {
        for (count, short) in [
            (0, "0"),
            (99_999_999, "99999999"),
            (100_000_000, "100000K"),
            (123_456_789_012, "123457M"),
            (123_456_789_012_345, "123457G"),
        ] {
            assert_eq!(Amount::Total(count).short(), short);
        }
    }

    #[test]
    fn clusters_are_summed_over_their_backends() {
        let backend = |cluster: &str, connections| BackendStats {
            address: [10, 10, 0, 6].into(),
            port: 8080,
            cluster: cluster.into(),
            connections: Amount::Total(connections),
            answered: Amount::Total(1),
            bytes: Amount::Total(100),
        };
        let sums = by_cluster(&[backend("b", 1), backend("a", 2), backend("b", 4)]);
        let said: Vec<_> =
            sums.iter().map(|sum| (sum.cluster.as_str(), sum.backends, sum.connections)).collect();
        assert_eq!(said, [("a", 1, Amount::Total(2)), ("b", 2, Amount::Total(5))]);
        assert_eq!((sums[1].answered, sums[1].bytes), (Amount::Total(2), Amount::Total(200)));
    }
}
