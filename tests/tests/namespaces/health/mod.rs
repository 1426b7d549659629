//! Clusters and endpoints that do not answer: who is drained when, how often it is tried, and how it comes back.

mod alone;
mod drained;
mod ejected;
mod told;
mod traffic;

use crate::{
    settings::{SETTINGS, set},
    stage::{Stage, VIP, VIP_V6},
};
use anyhow::Result;
use mcs_proxy_tests::{
    Pod, ServiceRow,
    karmada::{Port, Service},
};
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(2);

/// SYNs vanish on their way into the pod; what is open goes on.
const HOLE: &str = "add table inet hole; add counter inet hole syns; \
    add chain inet hole coming { type filter hook input priority 0; }; \
    add rule inet hole coming tcp flags & (syn | ack) == syn counter name syns drop; ";

fn stage(change: impl Fn(Service) -> Service, more: &[&str]) -> Result<Stage> {
    let arguments = [&SETTINGS[..], &["--failure-window", "2s", "--tier-hold", "1s"], more].concat();
    let stage = Stage::with(|service| change(service.annotated("enabled", "true")), &arguments)?;
    set(&stage, "{member1: '{on-failure: drain}', member2: '{on-failure: drain}'}")?;
    Ok(stage)
}

fn open_hole(pod: &Pod) -> Result<()> {
    pod.namespace.nft(HOLE).map(drop)
}

fn close_hole(pod: &Pod) -> Result<()> {
    pod.namespace.nft("delete table inet hole").map(drop)
}

/// SYNs that have come into the hole.
fn swallowed(pod: &Pod) -> Result<u64> {
    let text = pod.namespace.nft("list counter inet hole syns")?;
    let (_, rest) = text.split_once("packets ").unwrap();
    Ok(rest.split(' ').next().unwrap().parse()?)
}

/// Of all rows, the verdicts on a cluster's endpoints.
fn verdicts<'a>(rows: &'a [ServiceRow], cluster: &str) -> Vec<&'a str> {
    let endpoints = rows.iter().flat_map(|row| &row.endpoints);
    endpoints.filter(|endpoint| endpoint.cluster == cluster).map(|endpoint| &*endpoint.verdict).collect()
}

fn wait_for_verdicts(stage: &mut Stage, cluster: &str, verdict: &str) -> Result<()> {
    stage.daemon.wait_for_services(&format!("{cluster}: {verdict}"), |rows| {
        let verdicts = verdicts(rows, cluster);
        !verdicts.is_empty() && verdicts.iter().all(|it| *it == verdict)
    })
}

/// The Service calls TCP and UDP; of both families.
fn ports() -> [Port; 2] {
    [Port::new("http", "TCP", 80), Port::new("echo", "UDP", 80)]
}

/// As `serve` is, by another name and other addresses: the last bytes are told.
fn another(name: &str, last: u8) -> Result<Service> {
    let [v4, v6] = [VIP.rsplit_once('.').unwrap().0, VIP_V6.rsplit_once(':').unwrap().0];
    let ips = [format!("{v4}.{last}"), format!("{v6}:{last}")];
    Ok(Service::new(name, "member2", &[&ips[0], &ips[1]], &ports())?.annotated("enabled", "true"))
}
