//! The kernel refuses one bpf(2) call of a daemon after another, for want of memory: when it starts, and when something changes.
//! strace sees to it.

use crate::stage::{BACKEND, Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    POD_PORT, Process,
    client::{self, Connection},
    figure, is_long,
    karmada::{Endpoint, Port, Service, Slice},
};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// It made no such number of calls.
    Unharmed,
    /// It ended with an error that names what was refused.
    Ended,
    /// It did without, or tried again.
    Coped,
}

/// Starts the daemon with the `number`th call of each of its threads refused.
fn start(stage: &mut Stage, number: usize, trace: &Path) -> Result<Start> {
    let inject = format!("inject=bpf:error=ENOMEM:when={number}");
    let path = trace.display().to_string();
    // The tracer is the daemon's grandchild, and ends with it.
    let strace =
        ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", &path, "-e", "trace=bpf", "-e", &inject];
    let launched = stage.daemon.launch_under(&strace);
    let traced = fs::read_to_string(trace).unwrap_or_default();
    let refusals: Vec<_> = traced.lines().filter(|line| line.contains("(INJECTED)")).collect();
    let refused = !refusals.is_empty();
    if launched.is_ok() {
        return Ok(if refused { Start::Coped } else { Start::Unharmed });
    }
    ensure!(!stage.daemon.is_running()?, "call {number}: neither in step nor ended: {}", stage.daemon.log());
    ensure!(refused, "call {number}: it ended without a reason: {}", stage.daemon.log());
    let log = stage.daemon.log();
    let last = log.lines().last().unwrap_or_default();
    // A pinned map that aya cannot open it takes for one that is not there, and then finds its name taken.
    let is_taken = refusals.iter().any(|line| line.contains("BPF_OBJ_GET")) && last.contains("File exists");
    ensure!(
        is_taken || last.contains("Cannot allocate memory"),
        "call {number}: it does not say what was refused ({refusals:?}): {log}"
    );
    Ok(Start::Ended)
}

#[test]
fn a_start_that_is_refused_a_call_leaves_traffic_alone_and_the_next_one_is_whole() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    open.ask()?;
    let trace = stage.world.folder("trace")?.join("bpf");
    let few = [1, 4, 13, 40, 80, 120, 160, 200];
    let mut numbers: Box<dyn Iterator<Item = usize>> =
        if is_long() { Box::new(1..) } else { Box::new(few.into_iter()) };
    let (mut ended, mut coped) = (0, 0);
    for number in &mut numbers {
        stage.daemon.crash()?;
        let started = start(&mut stage, number, &trace)?;
        open.ask().with_context(|| format!("call {number} refused, {started:?}: an open connection"))?;
        client::http(&stage.client.namespace, vip()?, 2)
            .with_context(|| format!("call {number} refused, {started:?}: new connections"))?;
        match started {
            Start::Unharmed => break,
            Start::Ended => ended += 1,
            Start::Coped => coped += 1,
        }
        stage.daemon.crash()?;
        stage
            .daemon
            .launch_under(&[])
            .with_context(|| format!("the start after call {number} was refused"))?;
        ensure!(stage.attached()? == [1, 1], "call {number}: {:?}", stage.attached()?);
        open.ask()?;
        client::http(&stage.client.namespace, vip()?, 2)?;
        client::http(&stage.node.namespace, vip()?, 1)?;
    }
    figure(&format!(
        "bpf(2) calls of a start refused one by one: {} starts, of which {ended} ended with an error and {coped} went on; \
         no connection was lost, and each next start was whole",
        ended + coped
    ))?;
    ensure!(ended > 0, "no call that was refused ended a start");
    Ok(())
}

/// From here on, until it is dropped, the `number`th call of each of the daemon's threads is refused, and every fiftieth after it.
fn refuse(stage: &Stage, number: usize, trace: &Path) -> Result<Process> {
    let inject = format!("inject=bpf:error=ENOMEM:when={number}+50");
    let daemon = stage.daemon.id().context("it does not run")?.to_string();
    let path = trace.display().to_string();
    let arguments = ["-f", "-p", &daemon, "-o", &path, "-e", "trace=bpf", "-e", &inject];
    let tracer = stage.node.namespace.spawn("strace", Path::new("strace"), &arguments)?;
    // It says so once it has all of them: `Process 7 attached with 8 threads`.
    let start = Instant::now();
    while !fs::read_to_string(tracer.log())?.contains(" attached") {
        ensure!(start.elapsed() < Duration::from_secs(20), "{}", fs::read_to_string(tracer.log())?);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(tracer)
}

/// What is left undone is tried again, as long as it takes, and nobody's packets go astray meanwhile.
#[test]
fn a_change_that_is_refused_calls_is_made_good_and_open_connections_do_not_notice() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    open.ask()?;
    let trace = stage.world.folder("trace")?.join("bpf");
    let (mut changes, mut refused) = (0, 0);
    for number in 1..=if is_long() { 40 } else { 3 } {
        let tracer = refuse(&stage, number, &trace)?;
        let (name, ip) = (format!("more-{number}"), format!("10.13.1.{number}"));
        let service = Service::new(&name, "member2", &[&ip], &[Port::new("http", "TCP", 80)])?;
        stage.manifests.service(&service.annotated("enabled", "true"))?;
        let pod = Endpoint::new(BACKEND, &stage.node.name, "serve-1")?;
        let slice = Slice::new(&name, &name, "member2", "member2", &[pod]);
        stage.manifests.slice(&slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]))?;
        stage.daemon.wait_for_services("the new Service", |rows| {
            let own = rows.iter().find(|row| row.name == name);
            own.is_some_and(|row| row.endpoints.iter().any(|endpoint| endpoint.in_maps))
        })?;
        client::http(&stage.client.namespace, SocketAddr::new(ip.parse()?, 80), 2)
            .with_context(|| format!("call {number} refused: the new Service"))?;
        client::http(&stage.client.namespace, vip()?, 2)?;
        open.ask()?;
        drop(tracer);
        changes += 1;
        refused += fs::read_to_string(&trace)?.matches("(INJECTED)").count();
    }
    figure(&format!(
        "{changes} changes under which {refused} bpf(2) calls were refused: all were made good"
    ))?;
    ensure!(refused > 0, "nothing was refused");
    ensure!(stage.daemon.is_running()?, "{}", stage.daemon.log());
    Ok(())
}
