//! The real kube-proxy on the same API server and the same node, by its own log: when its caches had synced, and when a
//! synchronisation of its rules was complete.

use crate::{
    load::Objects,
    log::{self, Log},
    millis, spread,
};
use anyhow::{Context, Result};
use mcs_proxy_tests::{Node, api::ApiServer, programs};
use serde_json::{Value, json};
use std::{fs, time::SystemTime};

const LISTED: &str = "synced\"";
const LIVE: &str = "\"SyncProxyRules";

pub(crate) fn measure(
    objects: &Objects,
    node: &Node,
    api: &ApiServer,
    services: u32,
    changes: u32,
) -> Result<Value> {
    // It waits for a Node with an address.
    api.create(
        "/api/v1/nodes",
        &format!("{{apiVersion: v1, kind: Node, metadata: {{name: {}}}}}", node.name),
    )?;
    let address = json!({ "type": "InternalIP", "address": node.address });
    let status = json!({ "status": { "addresses": [address] } });
    api.patch(&format!("/api/v1/nodes/{}/status", node.name), &status)?;

    let kubeconfig = api.kubeconfig().display().to_string();
    let begun = SystemTime::now();
    let process = node.namespace.spawn(
        "bench-kube-proxy",
        &programs::kubernetes("kube-proxy")?,
        &[
            "--v=2",
            "--kubeconfig",
            &kubeconfig,
            "--proxy-mode=nftables",
            "--cluster-cidr=10.12.0.0/16",
            "--hostname-override",
            &node.name,
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ],
    )?;
    // Its first synchronisation may come before it has all: the one that counts begins after the last list.
    let path = process.log();
    let first = log::wait(path, |_| {
        let log = Log::read(path).ok()?;
        let listed = log.last(LISTED, None)?;
        let live = log.first_after(LIVE, listed.at)?;
        Some((listed, live))
    });
    let (listed, live) = first.with_context(|| fs::read_to_string(path).unwrap_or_default())?;
    let memory = crate::memory_of(process.id())?;
    let mut from_write = Vec::new();
    for round in 0..(changes / 10).max(1) {
        let written = SystemTime::now();
        objects.change((round * 7919) % services, changes + round)?;
        let live = log::wait(path, |log| log.first_after(LIVE, written))?;
        from_write.push(live.since(written));
    }
    Ok(json!({
        "start_to_last_list_ms": millis(listed.since(begun)),
        "last_list_to_live_ms": millis(live.since(listed.at)),
        "change_write_to_live": spread(from_write),
        "resident_mib": memory,
    }))
}
