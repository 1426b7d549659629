//! The real kube-proxy on the same API server and the same node.

use crate::{CHANGES, kube_proxy::KubeProxy, load::Objects, millis, spread};
use anyhow::Result;
use mcs_proxy_tests::{Node, ProxyMode, api::ApiServer};
use serde_json::{Value, json};
use std::time::SystemTime;

pub(crate) fn measure(objects: &Objects, node: &Node, api: &ApiServer, services: u32) -> Result<Value> {
    api.enter_node(node)?;
    let (proxy, started) = KubeProxy::start(node, api, ProxyMode::Nftables)?;
    let memory = crate::memory_of(proxy.id())?;
    let mut from_write = Vec::new();
    for round in 0..CHANGES / 10 {
        let written = SystemTime::now();
        objects.change((round * 7919) % services, CHANGES + round)?;
        from_write.push(proxy.wait_for_sync(written)?.since(written));
    }
    Ok(json!({
        "start_to_last_list_ms": millis(started.listed.since(started.begun)),
        "last_list_to_live_ms": millis(started.live.since(started.listed.at)),
        "change_write_to_live": spread(from_write),
        "resident_mib": memory,
    }))
}
