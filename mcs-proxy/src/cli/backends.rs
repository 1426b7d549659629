use super::{align::align, view::View};
use crate::observe::catalog::protocol_name;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// One backend of one frontend, as the maps hold it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BackendRow {
    /// Index into `backend_state` and `backend_counters`.
    id: u32,
    generation: u32,
    /// `live`, `serving` (keeps its flows, gets no new ones) or `gone`.
    state: &'static str,
    address: IpAddr,
    port: u16,
    protocol: &'static str,
    vip: IpAddr,
    vip_port: u16,
    /// `NAMESPACE/NAME`; empty if unknown.
    service: String,
    /// Slots it has.
    weight: u32,
    active: u32,
    inactive: u32,
    flows: u64,
    first_replies: u64,
    bytes: u64,
}

/// All backends, by id; those of one Service (`namespace/name`) if asked.
pub(super) fn rows(view: &View, service: Option<&str>) -> Vec<BackendRow> {
    let names = view.names();
    let mut rows: Vec<_> = view
        .frontends
        .iter()
        .flat_map(|frontend| {
            let service = names.get(&frontend.key).map(|name| name.service()).unwrap_or_default();
            frontend.backends.iter().map(move |backend| BackendRow {
                id: backend.id,
                generation: backend.generation,
                state: backend.state,
                address: backend.address.ip(),
                port: backend.address.port(),
                protocol: protocol_name(frontend.key.protocol),
                vip: frontend.key.vip,
                vip_port: frontend.key.port,
                service: service.clone(),
                weight: backend.slots,
                active: backend.active,
                inactive: backend.inactive,
                flows: backend.counters.new_flows(),
                first_replies: backend.counters.first_replies.into(),
                bytes: backend.counters.bytes,
            })
        })
        .filter(|row| service.is_none_or(|wanted| row.service == wanted))
        .collect();
    rows.sort_by_key(|row| row.id);
    rows
}

pub(super) fn table(rows: &[BackendRow]) -> String {
    if rows.is_empty() {
        return "No backends: no frontend has any.\n".into();
    }
    let title =
        ["Id", "State", "Prot", "Backend", "VIP", "Conns", "Answered", "ActiveConn", "Bytes", "Service"];
    let mut lines = vec![title.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.state.to_owned(),
            row.protocol.to_owned(),
            SocketAddr::new(row.address, row.port).to_string(),
            SocketAddr::new(row.vip, row.vip_port).to_string(),
            row.flows.to_string(),
            row.first_replies.to_string(),
            row.active.to_string(),
            row.bytes.to_string(),
            if row.service.is_empty() { "-".to_owned() } else { row.service.clone() },
        ]
    }));
    align(&lines)
}
