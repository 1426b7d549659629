//! `--cross-check`: the same arms by programs that others wrote, wrk in place of *crr* and *rr*, iperf3 in place of
//! *throughput*, in turn with ours, and how far the ratios to `direct` are apart.
//!
//! Their requests are larger than one byte, and wrk looks at its answers; what must agree is what an arm costs beside
//! `direct`, not the rates.

use crate::{
    Options,
    arm::Arm,
    bulk::Bulk,
    lane::Lane,
    objects::{self, SERVICE_RANGE},
    plan::{Plan, Size},
    ratio::{Ratio, quantile},
    samples::{Measure, Target},
};
use anyhow::{Context, Result, bail, ensure};
use mcs_proxy_tests::{Process, World, api::ApiServer, programs};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap, fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command, thread,
};

const SIZE: Size = Size { services: 1, endpoints: 1 };
const MEASURES: [Measure; 3] = [Measure::Crr, Measure::Rr, Measure::Throughput];
/// wrk knows whole seconds alone.
const SECONDS: &str = "2";
/// A connection each while it lasts: more than ours has, as a slice is longer.
const PORTS: &str = "10000 65535";
/// `iperf3` has its own connection to tell what it measures, so a Service of its own.
const IPERF_PORT: u16 = 5201;

/// A round of an arm, as a rate by each program.
#[derive(Debug, Serialize)]
struct Sample {
    round: u32,
    arm: Arm,
    measure: Measure,
    ours: f64,
    theirs: f64,
}

/// Measures, writes `cross-check.json` and `cross-check.md`, and returns what is to be printed.
pub(crate) fn run(options: &Options, folder: &Path) -> Result<String> {
    let arms = if options.arms.is_empty() { vec![Arm::Direct, Arm::Packet] } else { options.arms.clone() };
    ensure!(arms.contains(&Arm::Direct), "--cross-check compares with the arm `direct`: name it as well");
    let rounds = options.rounds.unwrap_or(5);
    let plan = Plan::new(options);
    eprintln!("an API server and {} nodes", arms.len());
    let mut world = World::new()?;
    let api = ApiServer::start(&world, SERVICE_RANGE)?;
    api.grant()?;
    objects::create(&world, &api, &SIZE)?;
    Bulk::connect(world.fabric(), &api).send(objects::iperf(IPERF_PORT))?;
    let mut lanes = Vec::new();
    for &arm in &arms {
        let lane = Lane::new(&mut world, &api, arm, &SIZE).with_context(|| arm.to_string())?;
        let server = serve(&lane)?;
        lanes.push((lane, server));
    }
    let mut samples = Vec::new();
    // Round 0 warms up.
    for round in 0..=rounds {
        eprintln!("round {round} of {rounds}");
        for measure in MEASURES {
            for (lane, _) in &mut lanes {
                let slice = lane.measure(measure, Target::Last, plan.slice(measure))?;
                let (arm, ours) = (lane.arm, slice.count as f64 / slice.seconds);
                let theirs = theirs(lane, measure).with_context(|| format!("{measure:?} of {arm}"))?;
                if round > 0 {
                    samples.push(Sample { round, arm, measure, ours, theirs });
                }
            }
        }
    }
    lanes.iter().try_for_each(|(lane, _)| lane.check())?;
    let ratios = ratios(&samples);
    let text = markdown(&samples, &ratios);
    fs::create_dir_all(folder)?;
    fs::write(folder.join("cross-check.json"), serde_json::to_string(&samples)? + "\n")?;
    fs::write(folder.join("cross-check.md"), &text)?;
    Ok(if options.json { summary(&ratios).to_string() } else { text })
}

/// iperf3's server beside ours, on the same core.
fn serve(lane: &Lane) -> Result<Process> {
    let iperf = programs::installed("iperf3", "iperf3")?.display().to_string();
    let port = IPERF_PORT.to_string();
    let name = format!("{}-iperf3", lane.arm);
    let server = lane.server().namespace.clone();
    server.spawn(&name, Path::new("taskset"), &["--cpu-list", &core()?, &iperf, "--server", "--port", &port])
}

fn core() -> Result<String> {
    Ok((thread::available_parallelism()?.get() - 1).to_string())
}

/// What wrk or iperf3 counts a second: requests, or bytes.
fn theirs(lane: &Lane, measure: Measure) -> Result<f64> {
    lane.client().namespace.sysctl("net/ipv4/ip_local_port_range", PORTS)?;
    let to = lane.address(Target::Last);
    match measure {
        Measure::Crr => wrk(lane, to, &["--header", "Connection: close"]),
        Measure::Rr => wrk(lane, to, &[]),
        Measure::Throughput => {
            let iperf =
                if lane.arm == Arm::Direct { objects::pod(0) } else { objects::iperf_vip(IPERF_PORT) };
            let (host, port) = (iperf.ip().to_string(), IPERF_PORT.to_string());
            let arguments = ["--client", &host, "--port", &port, "--time", SECONDS, "--json"];
            let said = call(lane, "iperf3", &arguments)?;
            let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
            let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
            Ok(bits.with_context(|| said.to_string())? / 8.0)
        }
    }
}

fn wrk(lane: &Lane, to: SocketAddr, more: &[&str]) -> Result<f64> {
    let url = format!("http://{to}/");
    let said = call(lane, "wrk", &[&["-t1", "-c1", "-d", SECONDS], more, &[&url]].concat())?;
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok()).with_context(|| said.clone())
}

/// In the client's place: its namespace, its cgroup and its core.
fn call(lane: &Lane, program: &str, arguments: &[&str]) -> Result<String> {
    let path = programs::installed(program, program)?;
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", lane.cgroup().path().display());
    let mut shell: Command = lane.client().namespace.command("sh")?;
    shell.args(["-c", &script, "sh", "taskset", "--cpu-list", &core()?]).arg(path).args(arguments);
    let output = shell.output().with_context(|| format!("{shell:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{program}: {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// By arm and measure, ours and theirs.
type Ratios = BTreeMap<(&'static str, &'static str), [Ratio; 2]>;

fn ratios(samples: &[Sample]) -> Ratios {
    let mut ratios = Ratios::new();
    let arms: Vec<Arm> = Arm::ALL.into_iter().filter(|arm| *arm != Arm::Direct).collect();
    for (measure, arm) in MEASURES.into_iter().flat_map(|measure| arms.iter().map(move |&arm| (measure, arm)))
    {
        let rates = |arm: Arm, of: fn(&Sample) -> f64| -> Vec<f64> {
            let is_asked = |sample: &&Sample| sample.arm == arm && sample.measure == measure;
            samples.iter().filter(is_asked).map(of).collect()
        };
        let beside = |of: fn(&Sample) -> f64| {
            let (own, direct) = (rates(arm, of), rates(Arm::Direct, of));
            Ratio::of(&own.iter().zip(&direct).map(|(own, direct)| own / direct).collect::<Vec<_>>())
        };
        if let Some(both) = beside(|sample| sample.ours).zip(beside(|sample| sample.theirs)) {
            ratios.insert((arm.name(), name(measure)), both.into());
        }
    }
    ratios
}

const fn name(measure: Measure) -> &'static str {
    match measure {
        Measure::Crr => "crr",
        Measure::Rr => "rr",
        Measure::Throughput => "throughput",
    }
}

fn program(measure: &str) -> &'static str {
    if measure == "throughput" { "iperf3" } else { "wrk" }
}

fn summary(ratios: &Ratios) -> Value {
    let mut all = BTreeMap::new();
    for ((arm, measure), [ours, theirs]) in ratios {
        all.insert(format!("{measure}.{arm}/direct"), ours);
        all.insert(format!("{measure}.{arm}/direct:{}", program(measure)), theirs);
    }
    json!({ "ratios": all })
}

fn markdown(samples: &[Sample], ratios: &Ratios) -> String {
    let mut text = "| ratio | ours | theirs | apart |\n|---|---|---|---|\n".to_owned();
    for ((arm, measure), [ours, theirs]) in ratios {
        let apart = (theirs.median / ours.median - 1.0) * 100.0;
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| `{measure}.{arm}/direct` | {:.3} ({:.3} to {:.3}) | {}: {:.3} ({:.3} to {:.3}) | {apart:+.1} % |",
            ours.median,
            ours.low,
            ours.high,
            program(measure),
            theirs.median,
            theirs.low,
            theirs.high
        );
    }
    for measure in MEASURES {
        let of = |of: fn(&Sample) -> f64| {
            let direct = samples.iter().filter(|one| one.arm == Arm::Direct && one.measure == measure);
            quantile(&direct.map(of).collect::<Vec<_>>(), 0.5).unwrap_or(f64::NAN)
        };
        let (ours, theirs) = (of(|sample| sample.ours), of(|sample| sample.theirs));
        let (name, program) = (name(measure), program(name(measure)));
        let _ =
            writeln!(text, "\n`direct` by ours: {ours:.0} a second of {name}, by {program}: {theirs:.0}.");
    }
    text
}
