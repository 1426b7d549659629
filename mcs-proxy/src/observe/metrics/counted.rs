use super::{
    families::{Families, Labels},
    ledger::{ClusterSums, Ledger, RowKey},
};
use crate::observe::{drift::Drift, inventory::Inventory};
use mcs_proxy_ebpf::abi::{Action, ServiceCounters, Verdict};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Unit};
use std::{collections::BTreeMap, fmt};

/// What was read from the maps for one page.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    by_service: Vec<(RowKey, ServiceCounters)>,
    by_cluster: Vec<(RowKey, ClusterSums)>,
    verdicts: Vec<(Verdict, u64)>,
    endpoints: BTreeMap<(String, String), usize>,
    unanswered: BTreeMap<RowKey, usize>,
    drift: Option<Drift>,
}

impl Counted {
    #[must_use]
    pub fn of(ledger: &Ledger, verdicts: Vec<(Verdict, u64)>) -> Self {
        Self {
            by_service: ledger.by_service.iter().map(|(key, sums)| (key.clone(), *sums)).collect(),
            by_cluster: ledger.by_cluster.iter().map(|(key, sums)| (key.clone(), *sums)).collect(),
            verdicts,
            ..Self::default()
        }
    }

    /// With what is known of the endpoints; clusters beyond `most` are one.
    #[must_use]
    pub fn with_endpoints(mut self, inventory: &Inventory, most: usize) -> Self {
        let mut clusters: Vec<&str> =
            inventory.verdicts.keys().map(|(cluster, _)| cluster.as_str()).collect();
        clusters.dedup();
        for ((cluster, verdict), count) in &inventory.verdicts {
            let has_row = clusters.iter().take(most).any(|one| one == cluster);
            let cluster = if has_row { cluster.clone() } else { "other".to_owned() };
            *self.endpoints.entry((cluster, verdict.clone())).or_default() += count;
        }
        // The rows of what is counted, and others as long as there is room.
        self.unanswered = self.by_cluster.iter().map(|(key, _)| (key.clone(), 0)).collect();
        for ((service, cluster), count) in inventory.unanswered() {
            let own = RowKey { service: Some(service), cluster: Some(cluster) };
            let has_row = self.unanswered.contains_key(&own) || self.unanswered.len() < most;
            let key = if has_row { own } else { RowKey { service: None, cluster: Some("other".to_owned()) } };
            *self.unanswered.entry(key).or_default() += count;
        }
        self
    }

    #[must_use]
    pub fn with_drift(mut self, drift: Option<Drift>) -> Self {
        self.drift = drift;
        self
    }

    fn services(&self, families: &mut Families<'_>) -> fmt::Result {
        let by_cluster = |value: fn(&ClusterSums) -> u64| {
            self.by_cluster.iter().map(move |(key, sums)| (labels(key, &[]), value(sums)))
        };
        families.counter(
            (
                "service_new",
                "New flows and connections by Service and the cluster they went to, by packets or by sockets",
                Some(Unit::Other("flows".into())),
            ),
            self.by_cluster.iter().flat_map(|(key, sums)| {
                [("packets", sums.flows), ("sockets", sums.connects)]
                    .map(|(path, count)| (labels(key, &[("path", path)]), count))
            }),
        )?;
        families.counter(
            (
                "service_answered",
                "New flows of the packet path that their backend has answered",
                Some(Unit::Other("flows".into())),
            ),
            by_cluster(|sums| sums.answered),
        )?;
        families.counter(
            (
                "service_cluster",
                "Bytes both ways by Service and source cluster, from the IP header on",
                Some(Unit::Bytes),
            ),
            by_cluster(|sums| sums.bytes),
        )?;
        families.gauge(
            (
                "service_unanswered_endpoints",
                "Endpoints without new flows because they, or their cluster, do not answer, of each VIP and port",
                None,
            ),
            self.unanswered.iter().map(|(key, count)| (labels(key, &[]), *count as f64)),
        )?;
        let by_way = |ways: fn(&ServiceCounters) -> [(&'static str, u64); 2]| {
            self.by_service.iter().flat_map(move |(key, sums)| {
                ways(sums).map(|(way, count)| (labels(key, &[("direction", way)]), count))
            })
        };
        families.counter(
            (
                "service",
                "Packets by Service: `in` from its clients, `out` to them",
                Some(Unit::Other("packets".into())),
            ),
            by_way(|sums| [("in", sums.packets_in), ("out", sums.packets_out)]),
        )?;
        families.counter(
            (
                "service",
                "Bytes by Service, from the IP header on: `in` from its clients, `out` to them",
                Some(Unit::Bytes),
            ),
            by_way(|sums| [("in", sums.bytes_in), ("out", sums.bytes_out)]),
        )
    }

    fn rest(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counter(
            (
                "verdict",
                "What the programs decided, by packet or by call; dropped ones have the action drop",
                Some(Unit::Other("packets".into())),
            ),
            self.verdicts.iter().map(|&(verdict, count)| {
                let labels =
                    vec![("verdict", snake(&format!("{verdict:?}"))), ("action", action(verdict).to_owned())];
                (labels, count)
            }),
        )?;
        families.gauge(
            (
                "endpoints",
                "Endpoints of Services that are ours, by source cluster and by what became of them",
                None,
            ),
            self.endpoints.iter().map(|((cluster, verdict), count)| {
                (vec![("cluster", cluster.clone()), ("verdict", verdict.clone())], *count as f64)
            }),
        )?;
        families.gauge(
            ("drift_frontends", "Frontends that are not in the maps as they should be", None),
            self.drift.iter().flat_map(|drift| {
                [("missing", drift.missing), ("different", drift.different), ("stray", drift.stray)]
                    .map(|(what, count)| (vec![("what", what.to_owned())], count as f64))
            }),
        )
    }
}

impl Collector for Counted {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        self.services(families)?;
        self.rest(families)
    }
}

fn labels(key: &RowKey, more: &[(&'static str, &str)]) -> Labels {
    let (namespace, service) = key.service.as_ref().map_or_else(
        || (String::new(), "other".to_owned()),
        |one| (one.namespace.to_string(), one.name.to_string()),
    );
    let mut labels = vec![("namespace", namespace), ("service", service)];
    labels.extend(key.cluster.clone().map(|cluster| ("cluster", cluster)));
    labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    labels
}

const fn action(verdict: Verdict) -> &'static str {
    match verdict.action() {
        Action::Next => "next",
        Action::Drop => "drop",
        Action::Return => "return",
        Action::Redirect => "redirect",
    }
}

/// `NewFlow` → `new_flow`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
