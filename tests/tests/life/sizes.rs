//! Maps are made larger by a restart, under traffic.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy::dataplane::sys::{self, Access};
use mcs_proxy_ebpf::abi::{ABI_VERSION, MapName};
use mcs_proxy_tests::{
    Rule,
    client::{self, Connection},
    figure, is_long,
};
use std::{
    os::fd::AsFd as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const SMALL: [&str; 14] = [
    "--max-frontends",
    "64",
    "--max-slots",
    "256",
    "--max-backends",
    "128",
    "--max-flows",
    "1024",
    "--max-flows-per-interface",
    "1024",
    "--max-transient-flows",
    "1024",
    "--max-sockets",
    "64",
];
const LARGE: [&str; 14] = [
    "--max-frontends",
    "4096",
    "--max-slots",
    "8192",
    "--max-backends",
    "8192",
    "--max-flows",
    "8192",
    "--max-flows-per-interface",
    "8192",
    "--max-transient-flows",
    "4096",
    "--max-sockets",
    "256",
];
/// More than the small maps would ever be asked for twice.
const CONNECTIONS: usize = 200;

fn layout(stage: &Stage) -> PathBuf {
    stage.pin_dir().join(format!("v{ABI_VERSION}"))
}

fn entries(stage: &Stage, map: MapName) -> Result<u32> {
    let path = layout(stage).join(map.as_str());
    Ok(sys::map_shape(sys::object_get(&path, Access::ReadOnly)?.as_fd())?.max_entries)
}

fn open(stage: &Stage) -> Result<Vec<Connection>> {
    Connection::open_many(&stage.client.namespace, vip()?, CONNECTIONS)
}

fn is_grown(stage: &mut Stage, open: &mut [Connection]) -> Result<()> {
    stage.daemon.wait_for_log("maps are larger than before")?;
    for (map, size) in [
        (MapName::Services, 4096),
        (MapName::Backends, 8192),
        (MapName::Flows, 8192),
        (MapName::Replies, 8192),
        (MapName::Transient, 4096),
        (MapName::SocketOrigins, 256),
    ] {
        ensure!(entries(stage, map)? == size, "{map:?}: {}", entries(stage, map)?);
    }
    ensure!(!stage.pin_dir().join(format!("v{ABI_VERSION}-old")).exists());
    ensure!(stage.attached()? == [1, 1], "{:?}", stage.attached()?);
    open.iter_mut().try_for_each(|connection| connection.ask().map(drop))?;
    ensure!(stage.daemon.connections()? >= CONNECTIONS, "{}", stage.daemon.connections()?);
    Ok(())
}

#[test]
fn maps_grow_by_a_restart_and_neither_open_connections_nor_new_ones_notice() -> Result<()> {
    let mut stage = Stage::new(&SMALL)?;
    let mut silent = open(&stage)?;
    let counted: u64 = stage.daemon.services()?.iter().map(|row| row.flows).sum();
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let namespace = stage.client.namespace.clone();
    thread::scope(|scope| -> Result<()> {
        let busy = scope.spawn(|| -> Result<()> {
            let mut open = Connection::open(&namespace, vip()?)?;
            while !done.load(Ordering::Relaxed) {
                open.ask().context("a connection that was open")?;
                let mut new = Connection::open(&namespace, vip()?).context("a new connection")?;
                new.ask().context("a connection that has just begun")?;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let grown = stage.daemon.launch_with(&LARGE).and_then(|()| is_grown(&mut stage, &mut silent));
        done.store(true, Ordering::Relaxed);
        busy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        grown
    })?;
    let asked = asked.load(Ordering::Relaxed) as u64;
    ensure!(asked > 10, "only {asked} connections came meanwhile");
    let now: u64 = stage.daemon.services()?.iter().map(|row| row.flows).sum();
    ensure!(now >= counted + asked, "{now} flows were counted, {counted} before and {asked} since");
    Ok(())
}

/// Wherever it is when it is killed.
#[test]
fn a_daemon_that_is_killed_while_maps_grow_is_gone_on_with() -> Result<()> {
    for milliseconds in [0, 60, 150, 300] {
        let mut stage = Stage::new(&SMALL)?;
        let mut silent = open(&stage)?;
        stage.daemon.crash()?;
        stage.daemon.launch_without_sync_with(&LARGE)?;
        let aside = stage.pin_dir().join(format!("v{ABI_VERSION}-old"));
        let start = Instant::now();
        while !aside.exists() && !layout(&stage).join("clock").exists() {
            ensure!(start.elapsed() < Duration::from_secs(30), "{}", stage.daemon.log());
        }
        thread::sleep(Duration::from_millis(milliseconds));
        stage.daemon.crash()?;
        silent.iter_mut().try_for_each(|connection| connection.ask().map(drop)).context("killed")?;
        client::http(&stage.client.namespace, vip()?, 2)?;
        let unfinished = aside.exists();
        stage.daemon.launch()?;
        if unfinished {
            is_grown(&mut stage, &mut silent)?;
        } else {
            silent.iter_mut().try_for_each(|connection| connection.ask().map(drop))?;
        }
        client::http(&stage.client.namespace, vip()?, 2)?;
    }
    Ok(())
}

/// Whichever call of the start in which they grow the kernel refuses, the next start has them grown.
#[test]
fn maps_grow_in_the_end_when_the_kernel_refuses_a_call_on_the_way() -> Result<()> {
    let small = || -> Result<Stage> {
        let mut stage = Stage::new(&SMALL)?;
        LARGE.chunks(2).for_each(|flag| stage.daemon.set_flag(flag[0], flag[1]));
        Ok(stage)
    };
    let mut stage = small()?;
    stage.daemon.crash()?;
    stage.daemon.launch_gated(Rule::Pass)?;
    let most = stage.daemon.gate()?.calls();
    let places = if is_long() { 60 } else { 5 };
    let (mut ended, mut went_on) = (0, 0);
    // The first calls are those of any start: they look at what is pinned.
    for place in 1..=places {
        let rule = Rule::One { number: place * most / (places + 1), error: libc::ENOMEM };
        stage = small()?;
        let mut silent = open(&stage)?;
        stage.daemon.crash()?;
        if stage.daemon.launch_gated(rule).is_ok() {
            went_on += 1;
        } else {
            ended += 1;
        }
        let log = stage.daemon.log();
        let under = || format!("{rule:?} of {most}: {log}");
        ensure!(!log.contains("panicked"), "{}", under());
        silent.iter_mut().try_for_each(|connection| connection.ask().map(drop)).with_context(under)?;
        client::http(&stage.client.namespace, vip()?, 2).with_context(under)?;
        stage.daemon.crash()?;
        let aside = stage.pin_dir().join(format!("v{ABI_VERSION}-old"));
        let is_done = !aside.exists() && entries(&stage, MapName::Services)? == 4096;
        stage.daemon.launch().with_context(under)?;
        if is_done {
            silent.iter_mut().try_for_each(|connection| connection.ask().map(drop)).with_context(under)?;
        } else {
            is_grown(&mut stage, &mut silent).with_context(under)?;
        }
        client::http(&stage.client.namespace, vip()?, 2).with_context(under)?;
    }
    figure(&format!(
        "maps that grow, with one of the start's {most} bpf(2) calls refused: {ended} starts ended with an error and {went_on} \
         went on; 0 of {CONNECTIONS} connections each were lost, and the next start had every map grown"
    ))
}

#[test]
fn a_smaller_size_is_refused_with_the_flag_and_what_runs_goes_on() -> Result<()> {
    let mut stage = Stage::new(&LARGE)?;
    stage.daemon.crash()?;
    let source = format!("directory={}", stage.manifests.folder().display());
    let own = ["run", "--cluster-name", "member2", "--source", &source];
    let said = stage.refused(&[&own[..], &SMALL].concat())?;
    ensure!(said.contains("start with --max-frontends 4096"), "{said}");
    client::http(&stage.client.namespace, vip()?, 1)?;
    Ok(())
}
