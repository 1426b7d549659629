use super::{align::align, view::View};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// One flow, as the maps hold it.
#[derive(Debug, Serialize)]
pub(super) struct ConnectionRow {
    /// `TCP` or `UDP`.
    protocol: String,
    /// TCP: `syn-sent`, `syn-received`, `established`, `half-closed`, `time-wait` or `closed` (reset). UDP: `unanswered`,
    /// `answered` or `established` (traffic both ways for two seconds).
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

/// All flows, by client; those of one Service (`namespace/name`) if asked.
pub(super) fn rows(view: &View, service: Option<&str>) -> Vec<ConnectionRow> {
    let names = view.names();
    let mut rows: Vec<_> = view
        .flows
        .iter()
        .map(|flow| (flow, flow.frontend().and_then(|key| names.get(&key))))
        .map(|(flow, name)| ConnectionRow {
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
        })
        .filter(|row| service.is_none_or(|wanted| row.service == wanted))
        .collect();
    rows.sort_by_key(|row| (row.client, row.client_port, row.vip, row.vip_port, row.protocol.clone()));
    rows
}

pub(super) fn table(rows: &[ConnectionRow]) -> String {
    if rows.is_empty() {
        return "No flows.\n".into();
    }
    let title = ["Prot", "State", "Idle", "Client", "VIP", "Backend", "Cluster", "Service"];
    let mut lines = vec![title.map(str::to_owned).to_vec()];
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
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
