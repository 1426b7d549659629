//! The kernel refuses one bpf(2) call of a starting daemon after another, for want of memory; strace sees to it.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    client::{self, Connection},
    figure, is_long,
};
use std::{fs, path::Path};

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
