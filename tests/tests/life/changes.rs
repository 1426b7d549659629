//! The kernel refuses bpf(2) calls of a daemon that runs, when something changes: one after another, and all of them for a while.

use crate::stage::{BACKEND, Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    POD_PORT, Rule,
    client::{self, Connection},
    figure, is_long,
    karmada::{Endpoint, Port, Service, Slice},
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// What a kernel may say: it lacks memory, a map is full, the rights are gone.
const ERRORS: [(&str, i32); 3] = [("ENOMEM", libc::ENOMEM), ("E2BIG", libc::E2BIG), ("EPERM", libc::EPERM)];

/// The lines of a log that name the map of a change that is to be tried again.
fn refusals(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains(" ERROR map `") && line.contains("tried again"))
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A Service that comes, by its number.
#[derive(Clone, Debug)]
struct Newcomer {
    name: String,
    address: SocketAddr,
}

impl Newcomer {
    fn new(number: usize) -> Result<Self> {
        let address = SocketAddr::new(format!("10.13.1.{number}").parse()?, 80);
        Ok(Self { name: format!("more-{number}"), address })
    }

    fn come(&self, stage: &Stage) -> Result<()> {
        let (name, ip) = (&self.name, self.address.ip().to_string());
        let service = Service::new(name, "member2", &[&ip], &[Port::new("http", "TCP", 80)])?;
        stage.manifests.service(&service.annotated("enabled", "true"))?;
        let pod = Endpoint::new(BACKEND, &stage.node.name, "serve-1")?;
        let slice = Slice::new(name, name, "member2", "member2", &[pod]);
        stage.manifests.slice(&slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]))
    }

    fn go(&self, stage: &Stage) -> Result<()> {
        stage.manifests.remove(&format!("service-{}", self.name))?;
        stage.manifests.remove_slice(&self.name)
    }

    /// Waits until it is in the maps, and the one before it is not.
    fn is_there_alone(&self, stage: &mut Stage) -> Result<()> {
        stage.daemon.wait_for_services("the new Service in the place of the one before", |rows| {
            let others = rows.iter().filter(|row| row.name != "serve" && row.name != self.name).count();
            let own = rows.iter().find(|row| row.name == self.name);
            let served = own
                .is_some_and(|row| row.endpoints.len() == 1 && row.endpoints.iter().all(|one| one.in_maps));
            others == 0 && served
        })?;
        client::http(&stage.client.namespace, self.address, 2)?;
        client::http(&stage.node.namespace, self.address, 1)?;
        Ok(())
    }
}

/// What the Service that was there before has, it keeps.
fn is_served(stage: &Stage, open: &mut Connection) -> Result<()> {
    client::http(&stage.client.namespace, vip()?, 2)?;
    client::http(&stage.node.namespace, vip()?, 1)?;
    open.ask().context("an open connection")?;
    Ok(())
}

fn status(stage: &Stage) -> Result<Value> {
    let output = stage.run(&["status", "-o", "json"])?;
    let said: Value = serde_json::from_slice(&output.stdout).context("status -o json")?;
    ensure!(said["told_by"] == "daemon", "{said:#}");
    Ok(said)
}

/// How well the daemon says that its changes of the maps fare.
fn transactions(stage: &Stage) -> Result<(String, String)> {
    let said = status(stage)?;
    let lines = said["lines"].as_array().context("no lines")?;
    let line = lines.iter().find(|line| line["part"] == "transactions").context("no such line")?;
    let word = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    Ok((word("level"), word("says")))
}

/// The maps are read anew and compared with what is wanted: the daemon's own answer.
fn has_no_drift(stage: &Stage) -> Result<()> {
    let mut drift = Value::Null;
    // It is not known while names are being written.
    until("the drift is known", || {
        drift = status(stage)?["drift"].take();
        Ok(!drift.is_null())
    })?;
    ensure!(drift["frontends"] == 2, "{drift:#}");
    ensure!(["missing", "different", "stray"].iter().all(|what| drift[what] == 0), "{drift:#}");
    Ok(())
}

/// With a daemon that the kernel takes every call of, so far.
fn gated_stage() -> Result<Stage> {
    let mut stage = Stage::new(&[])?;
    stage.daemon.crash()?;
    stage.daemon.launch_gated(Rule::Pass)?;
    Ok(stage)
}

/// What is left undone is tried again, as long as it takes, and nobody's packets go astray meanwhile.
#[test]
fn a_change_that_is_refused_calls_is_made_good_and_open_connections_do_not_notice() -> Result<()> {
    let mut stage = gated_stage()?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    let gate = stage.daemon.gate()?.clone();
    let (mut changes, mut refused) = (0, 0);
    let numbers = if is_long() { 40 } else { 2 };
    let calls = (1..=numbers).flat_map(|number| ERRORS.map(|(name, error)| (number, name, error)));
    let mut last: Option<Newcomer> = None;
    for (number, name, error) in calls {
        changes += 1;
        let new = Newcomer::new(changes)?;
        gate.set(Rule::Every { number, step: 50, error });
        new.come(&stage)?;
        if let Some(last) = last.replace(new.clone()) {
            last.go(&stage)?;
        }
        let under = || format!("call {number} refused with {name}");
        new.is_there_alone(&mut stage).with_context(under)?;
        is_served(&stage, &mut open).with_context(under)?;
        let failed = gate.refused().len();
        gate.set(Rule::Pass);
        has_no_drift(&stage).with_context(under)?;
        ensure!(number > 2 || failed > 0, "{}: nothing was", under());
        refused += failed;
    }
    figure(&format!(
        "{changes} changes under which {refused} bpf(2) calls were refused, by {}: all were made good, without drift, \
         and no connection was lost",
        ERRORS.map(|(name, _)| name).join(", ")
    ))?;
    let log = stage.daemon.log();
    ensure!(stage.daemon.is_running()? && !log.contains("panicked"), "{log}");
    Ok(())
}

/// Not one call succeeds: the log names the map, what was served is served on, and once the kernel takes calls again the maps
/// hold what is wanted.
#[test]
fn a_kernel_that_takes_no_change_is_told_of_by_map_and_followed_up_once_it_does() -> Result<()> {
    let mut stage = gated_stage()?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    let gate = stage.daemon.gate()?.clone();
    let mut last = Newcomer::new(1)?;
    last.come(&stage)?;
    last.is_there_alone(&mut stage)?;
    let (mut refused, mut longest) = (0, Duration::ZERO);
    let rounds = if is_long() { 10 } else { 1 };
    for (round, (name, error)) in (0..rounds).flat_map(|_| ERRORS).enumerate() {
        let told = stage.daemon.log().len();
        gate.set(Rule::All { error });
        let new = Newcomer::new(round + 2)?;
        new.come(&stage)?;
        last.go(&stage)?;
        // A step that is refused, maps that cannot be read then, and at least one more attempt.
        until("the log tells of it", || Ok(refusals(&stage.daemon.log()[told..]).count() > 2))
            .with_context(|| format!("{name}: {}", stage.daemon.log()))?;
        let log = stage.daemon.log();
        let number = format!("(os error {error})");
        ensure!(refusals(&log[told..]).all(|line| line.contains(&number)), "{name}: {log}");
        // The programs cannot be told that there is a daemon either.
        until("the log tells of that", || {
            Ok(stage.daemon.log()[told..].contains("to the programs there is no daemon"))
        })?;
        is_served(&stage, &mut open).with_context(|| format!("all calls refused with {name}"))?;
        let (level, says) = transactions(&stage)?;
        ensure!(level == "warning" && says.contains("refused changes of the maps for"), "{level}: {says}");
        refused += gate.refused().len();
        gate.set(Rule::Pass);
        let start = Instant::now();
        new.is_there_alone(&mut stage).with_context(|| format!("after {name}"))?;
        longest = longest.max(start.elapsed());
        is_served(&stage, &mut open)?;
        ensure!(transactions(&stage)?.0 == "ok", "{:?}", transactions(&stage)?);
        has_no_drift(&stage).with_context(|| format!("after {name}"))?;
        last = new;
    }
    figure(&format!(
        "changes under which every bpf(2) call is refused: {} of them, {refused} calls: the log named the map, what was there \
         was served on, and at most {longest:.1?} after the end of it the maps held what is wanted, without drift",
        rounds * ERRORS.len()
    ))?;
    ensure!(!stage.daemon.log().contains("panicked"), "{}", stage.daemon.log());
    Ok(())
}
