use super::{align::align, filter::Flow, stats::dash, view::View};
use crate::config::Connections;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// One flow, as the maps hold it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConnectionRow {
    /// `TCP`, `UDP` or `SCTP`.
    protocol: String,
    /// TCP: `syn-sent`, `syn-received`, `established`, `half-closed`, `time-wait` or `closed` (reset). UDP, SCTP:
    /// `unanswered`, `answered`, `established` (UDP: traffic both ways for two seconds) or `closed` (SCTP).
    state: &'static str,
    client: IpAddr,
    client_port: u16,
    vip: IpAddr,
    vip_port: u16,
    backend: IpAddr,
    backend_port: u16,
    /// The cluster whose pod the backend is; empty if unknown.
    cluster: String,
    /// `NAMESPACE/NAME`; empty if unknown.
    service: String,
    /// Index of the client's interface in the node's network namespace.
    interface: u32,
    /// Seconds since a packet was noted; notes are about a second apart.
    idle_seconds: u64,
}

/// Flows, by client; those that are asked for.
pub(super) fn rows(view: &View, asked: &Connections) -> Vec<ConnectionRow> {
    let names = view.names();
    let mut rows: Vec<_> = view
        .flows
        .iter()
        .map(|flow| (flow, flow.frontend().and_then(|key| names.get(&key))))
        .map(|(flow, name)| {
            let row = ConnectionRow {
                protocol: flow.protocol.clone(),
                state: flow.state,
                client: flow.client.ip(),
                client_port: flow.client.port(),
                vip: flow.vip.ip(),
                vip_port: flow.vip.port(),
                backend: flow.backend.ip(),
                backend_port: flow.backend.port(),
                cluster: name.and_then(|name| name.cluster_of(flow.backend)).unwrap_or_default(),
                service: name.map(|name| name.service()).unwrap_or_default(),
                interface: flow.interface,
                idle_seconds: flow.idle_seconds,
            };
            (flow, row)
        })
        .filter(|(flow, row)| {
            asked.filter.has(&Flow {
                client: Some(flow.client),
                backend: Some(flow.backend),
                protocol: flow.frontend().map(|key| key.protocol),
                service: &row.service,
                cluster: &row.cluster,
            }) && (asked.state.is_empty() || asked.state.iter().any(|state| state == row.state))
        })
        .map(|(_, row)| row)
        .collect();
    rows.sort_by_key(|row| (row.client, row.client_port, row.vip, row.vip_port, row.protocol.clone()));
    rows
}

pub(super) fn table(rows: &[ConnectionRow], asked: &Connections) -> String {
    if rows.is_empty() {
        let service = asked.filter.service.as_deref();
        return match service {
            Some(service) if asked.is_of_service_alone() => {
                format!("No flows of Service {service}: there are none now.\n")
            }
            _ if asked.filter.is_any() && asked.state.is_empty() => "No flows.\n".into(),
            Some(_) | None => "No flows like these; without filters all are listed.\n".into(),
        };
    }
    let title = ["Prot", "State", "Idle", "Client", "VIP", "Backend", "Cluster", "Service"];
    let mut lines = vec![title.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.protocol.clone(),
            row.state.to_owned(),
            format!("{}s", row.idle_seconds),
            SocketAddr::new(row.client, row.client_port).to_string(),
            SocketAddr::new(row.vip, row.vip_port).to_string(),
            SocketAddr::new(row.backend, row.backend_port).to_string(),
            dash(&row.cluster),
            dash(&row.service),
        ]
    }));
    align(&lines)
}

impl Connections {
    fn is_of_service_alone(&self) -> bool {
        let Self { filter, state, .. } = self;
        state.is_empty()
            && filter.client.is_none()
            && filter.backend.is_none()
            && filter.cluster.is_none()
            && filter.protocol.is_none()
    }
}
