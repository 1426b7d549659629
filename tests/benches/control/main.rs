//! The control loop at scale: a real API server, a real daemon on a node, 1,000 and 100,000 endpoints.
//!
//! Everything is read from clocks that an operator has, too: the daemon's log says when a list or an object was decoded
//! (`told`) and when the maps held it (`synced`, `programmed`). What passes before `told` is the API server's, the
//! network's and the decoder's share; what passes after it is the control loop's.
//!
//! Every Service has ten endpoints: two local ones and two slices of four that another cluster exports.

#[path = "../bulk.rs"]
mod bulk;
#[path = "../kube_proxy.rs"]
mod kube_proxy;
mod load;
mod log;
mod peer;

use anyhow::{Context, Result};
use load::Objects;
use log::Log;
use mcs_proxy_tests::{Daemon, Node, World, api::ApiServer};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, SystemTime},
};

/// Services, of ten endpoints each.
const SIZES: [u32; 2] = [100, 10_000];
const CHANGES: u32 = 300;

fn main() -> Result<()> {
    let json = std::env::args().any(|argument| argument == "--json");
    let mut rows = Vec::new();
    for services in SIZES {
        rows.push(measure(services)?);
    }
    if json {
        println!("{}", json!({ "rows": rows }));
    } else {
        rows.iter().for_each(print);
    }
    Ok(())
}

fn measure(services: u32) -> Result<Value> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let api = ApiServer::start(&world, "10.64.0.0/12")?;
    api.grant()?;
    let objects = Objects::connect(world.fabric(), &api);
    let loading = SystemTime::now();
    objects.create(services)?;
    eprintln!("{services} Services are there after {:.1} s", loading.elapsed()?.as_secs_f64());

    let (mut daemon, first) = start(&node, &api)?;
    let memory = memory(&daemon)?;
    let changes = change(&objects, &mut daemon, services)?;
    let memory_after = self::memory(&daemon)?;
    daemon.stop();
    let peer = peer::measure(&objects, &node, &api, services)?;
    Ok(json!({
        "services": services,
        "endpoints": services * 10,
        "first_sync": first,
        "resident_mib": memory,
        "resident_after_changes_mib": memory_after,
        "change": changes,
        "kube_proxy": peer,
    }))
}

/// From the start of the process to all of it live.
fn start(node: &Node, api: &ApiServer) -> Result<(Daemon, Value)> {
    let kubeconfig = api.daemon_kubeconfig().display().to_string();
    let begun = SystemTime::now();
    let daemon = Daemon::start_with(
        node,
        &["--source", "kubernetes", "--kubeconfig", &kubeconfig, "--all-services", "--max-slots", "1048576"],
    )?;
    let log = Log::read(daemon.log_path())?;
    let told = log.last("told", None).context("the log tells of no list: is RUST_LOG set?")?;
    let live = log.last("synced", None).context("never synced")?;
    Ok((
        daemon,
        json!({
            "start_to_last_list_ms": millis(told.since(begun)),
            "last_list_to_live_ms": millis(live.since(told.at)),
            "start_to_live_ms": millis(live.since(begun)),
        }),
    ))
}

/// One slice's change after another, each awaited: another address takes the place of one.
fn change(objects: &Objects, daemon: &mut Daemon, services: u32) -> Result<Value> {
    let (mut from_write, mut from_decoded, mut api_share) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..CHANGES {
        let written = SystemTime::now();
        objects.change((round * 7919) % services, round)?;
        let done = log::wait(daemon.log_path(), |log| {
            let live = log.last("programmed", Some(written))?;
            Some((log.last("told", Some(written))?, live))
        });
        let (told, live) = done.with_context(|| format!("change {round} never arrived: {}", daemon.log()))?;
        from_write.push(live.since(written));
        from_decoded.push(live.since(told.at));
        api_share.push(told.since(written));
    }
    Ok(json!({
        "write_to_live": spread(from_write),
        "decoded_to_live": spread(from_decoded),
        "write_to_decoded": spread(api_share),
    }))
}

/// What is resident: all of it, and what of it is the process's own (the rest are the program's file and the maps).
fn memory(daemon: &Daemon) -> Result<Value> {
    memory_of(daemon.id().context("not running")?)
}

fn memory_of(id: u32) -> Result<Value> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib =
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
        (kib.unwrap_or_default() / 102.4).round() / 10.0
    };
    Ok(
        json!({ "all": mib("VmRSS:"), "anonymous": mib("RssAnon:"), "files_and_maps": mib("RssFile:"), "peak": mib("VmHWM:") }),
    )
}

pub(crate) fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
    let millis = |percent| at(percent).map(millis);
    json!({ "p50_ms": millis(50), "p99_ms": millis(99), "worst_ms": times.last().copied().map(self::millis) })
}

pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn print(row: &Value) {
    println!("\n{} Services, {} endpoints", row["services"], row["endpoints"]);
    for part in ["first_sync", "resident_mib", "resident_after_changes_mib", "change", "kube_proxy"] {
        let Some(values) = row[part].as_object() else { continue };
        println!("  {part}");
        for (name, value) in values {
            println!("    {name:24} {value}");
        }
    }
}
