use super::{align::align, drained, loads::Loads, render, stats::full_name, view::View};
use crate::config::{List, Output, Places};
use crate::observe::{
    catalog::{CatalogFrontend, protocol_name},
    health::Unanswered,
    interfaces::SilentInterface,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// One frontend: one port of one Service on one VIP.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ServiceRow {
    /// Empty if no daemon has said whose VIP this is.
    namespace: String,
    name: String,
    port_name: String,
    pub(super) vip: IpAddr,
    pub(super) port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub(super) protocol: &'static str,
    /// `round-robin`, `random` or `maglev`.
    algorithm: &'static str,
    /// Since the frontend was entered.
    counters: Counters,
    endpoints: Vec<EndpointRow>,
    /// What the endpoints above do not have: with it they add up to the frontend's.
    departed: Departed,
}

/// Of endpoints that the slots do not hold, or not any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Departed {
    /// Flows that are not closing, to endpoints that are not listed.
    active: u32,
    /// The same, closing.
    inactive: u32,
    /// New flows since the frontend was entered, those to endpoints with `in_maps: false` included.
    flows: u64,
}

#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Counters {
    /// New flows.
    flows: u64,
    packets_in: u64,
    packets_out: u64,
    /// From the IP header on.
    bytes_in: u64,
    bytes_out: u64,
}

/// One endpoint: what the maps hold of it beside what the daemon decided about it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct EndpointRow {
    address: IpAddr,
    port: u16,
    /// The cluster whose pod it is; empty if unknown.
    cluster: String,
    /// The EndpointSlice that lists it; empty if unknown.
    slice: String,
    /// Why it takes new flows or does not; empty if unknown.
    verdict: String,
    /// Whether the frontend's slots hold it.
    in_maps: bool,
    /// Slots it has: its share of new flows is this over the sum.
    weight: u32,
    /// Flows that are not closing.
    active: u32,
    /// Flows that are closing.
    inactive: u32,
    /// New flows since it was entered; 0 if `in_maps` is false, and `departed` has them.
    flows: u64,
    /// Of these, how many it answered.
    first_replies: u64,
    /// Both directions, from the IP header on.
    bytes: u64,
}

impl ServiceRow {
    /// Whether they differ by their counters alone.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let what = |row: &Self| {
            let names = [&row.namespace, &row.name, &row.port_name].map(String::clone);
            (names, row.vip, row.port, row.protocol, row.algorithm)
        };
        what(self) == what(other)
            && self.endpoints.len() == other.endpoints.len()
            && self.endpoints.iter().zip(&other.endpoints).all(|(one, other)| one.is_alike(other))
    }
}

impl EndpointRow {
    fn is_alike(&self, other: &Self) -> bool {
        let what = |row: &Self| {
            let words = [&row.cluster, &row.slice, &row.verdict].map(String::clone);
            (row.address, row.port, words, row.in_maps, row.weight)
        };
        what(self) == what(other)
    }
}

/// As they are printed once.
pub(super) fn listed(
    rows: &Vec<ServiceRow>,
    places: &Places,
    list: &List,
    view: &View,
) -> anyhow::Result<String> {
    if let Some(why) = drained::why_none(places, view) {
        match list.output {
            Output::Table => {
                if let Some(text) = why.text(view, list.service.as_deref()) {
                    return Ok(text + &warnings(&view.silent, &view.unanswered));
                }
            }
            // Beside the list of what the maps hold, which is empty.
            Output::Json | Output::Yaml => eprint!("mcs-proxy: {}", why.headline()),
        }
    }
    let none = "it does not exist, is not opted in (annotate it with mcs-proxy.io/enabled: \"true\") or has no \
                ClusterIP or port";
    render(rows, list, |rows| table(rows) + &warnings(&view.silent, &view.unanswered), ("frontends", none))
}

/// All frontends, by VIP, port and protocol; those of one Service (`namespace/name`) if asked.
pub(super) fn rows(view: &View, service: Option<&str>) -> Vec<ServiceRow> {
    let (names, loads) = (view.names(), Loads::of(view));
    view.frontends
        .iter()
        .map(|frontend| (frontend, names.get(&frontend.key).copied()))
        .filter(|(_, name)| service.is_none_or(|wanted| name.is_some_and(|name| name.service() == wanted)))
        .map(|(frontend, name)| (frontend, name, endpoints(frontend, name, &loads)))
        .map(|(frontend, name, endpoints)| ServiceRow {
            namespace: name.map(|name| name.namespace.clone()).unwrap_or_default(),
            name: name.map(|name| name.name.clone()).unwrap_or_default(),
            port_name: name.map(|name| name.port_name.clone()).unwrap_or_default(),
            vip: frontend.key.vip,
            port: frontend.key.port,
            protocol: protocol_name(frontend.key.protocol),
            algorithm: frontend.algorithm,
            counters: Counters {
                flows: frontend.counters.flows,
                packets_in: frontend.counters.packets_in,
                packets_out: frontend.counters.packets_out,
                bytes_in: frontend.counters.bytes_in,
                bytes_out: frontend.counters.bytes_out,
            },
            departed: departed(frontend, &endpoints, &loads),
            endpoints,
        })
        .collect()
}

fn departed(frontend: &super::view::Frontend, rows: &[EndpointRow], loads: &Loads) -> Departed {
    let sum = |of: fn(&EndpointRow) -> u32| rows.iter().map(of).sum::<u32>();
    let [active, inactive] = loads.all(&frontend.key);
    Departed {
        active: active.saturating_sub(sum(|row| row.active)),
        inactive: inactive.saturating_sub(sum(|row| row.inactive)),
        flows: frontend.counters.flows.saturating_sub(rows.iter().map(|row| row.flows).sum()),
    }
}

/// What the slots hold, in their order, then what was left out.
fn endpoints(
    frontend: &super::view::Frontend,
    names: Option<&CatalogFrontend>,
    loads: &Loads,
) -> Vec<EndpointRow> {
    let named = names.map(|names| names.endpoints.as_slice()).unwrap_or_default();
    let in_slots = frontend.backends.iter().map(|backend| {
        let name = names.and_then(|names| names.endpoint(backend.address));
        EndpointRow {
            address: backend.address.ip(),
            port: backend.address.port(),
            cluster: name.map(|name| name.cluster.clone()).unwrap_or_default(),
            slice: name.map(|name| name.slice.clone()).unwrap_or_default(),
            verdict: name.map(|name| name.verdict.clone()).unwrap_or_default(),
            in_maps: true,
            weight: backend.slots,
            active: backend.active,
            inactive: backend.inactive,
            flows: backend.counters.new_flows(),
            first_replies: backend.counters.first_replies.into(),
            bytes: backend.counters.bytes,
        }
    });
    let mut seen = BTreeSet::new();
    let has = |address| frontend.backends.iter().any(|backend| backend.address == address);
    let left_out = named
        .iter()
        .filter(|name| !(name.is_used() && has(SocketAddr::new(name.address, name.port))))
        .map(|name| {
            let address = SocketAddr::new(name.address, name.port);
            // Of duplicates, the flows are the first one's.
            let is_first = seen.insert(address) && !has(address);
            let [active, inactive] = if is_first { loads.to(&frontend.key, address) } else { [0; 2] };
            EndpointRow {
                address: name.address,
                port: name.port,
                cluster: name.cluster.clone(),
                slice: name.slice.clone(),
                verdict: name.verdict.clone(),
                in_maps: false,
                weight: 0,
                active,
                inactive,
                flows: 0,
                first_replies: 0,
                bytes: 0,
            }
        });
    in_slots.chain(left_out).collect()
}

/// Beneath the table, a line for each.
fn warnings(silent: &[SilentInterface], unanswered: &[Unanswered]) -> String {
    let interfaces = silent.iter().map(ToString::to_string);
    let warnings = interfaces.chain(unanswered.iter().map(ToString::to_string));
    warnings.map(|warning| format!("Warning: {warning}\n")).collect()
}

fn table(rows: &[ServiceRow]) -> String {
    if rows.is_empty() {
        return "No frontends: no Service is opted in (annotate one with mcs-proxy.io/enabled: \"true\").\n"
            .into();
    }
    let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let mut lines = vec![
        cells(&["Prot", "VIP:Port", "Algorithm", "", "", "", "Service"]),
        cells(&["", "-> Address:Port", "Weight", "ActiveConn", "InActConn", "Conns", "Cluster", "Verdict"]),
    ];
    for row in rows {
        let service = full_name(&row.namespace, &row.name, &row.port_name);
        let vip = SocketAddr::new(row.vip, row.port).to_string();
        lines.push(cells(&[
            row.protocol,
            &vip,
            row.algorithm,
            "",
            "",
            &row.counters.flows.to_string(),
            &service,
        ]));
        for endpoint in &row.endpoints {
            let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            lines.push(vec![
                String::new(),
                format!("-> {}", SocketAddr::new(endpoint.address, endpoint.port)),
                endpoint.weight.to_string(),
                endpoint.active.to_string(),
                endpoint.inactive.to_string(),
                // Nothing holds it any more; it is among those beneath.
                if endpoint.in_maps { endpoint.flows.to_string() } else { "-".into() },
                dash(&endpoint.cluster),
                dash(&endpoint.verdict),
            ]);
        }
        if row.departed != Departed::default() {
            let Departed { active, inactive, flows } = row.departed;
            let [active, inactive, flows] = [active.to_string(), inactive.to_string(), flows.to_string()];
            lines.push(cells(&[
                "",
                "-> others",
                "-",
                &active,
                &inactive,
                &flows,
                "-",
                "not in the maps any more",
            ]));
        }
    }
    align(&lines)
}
