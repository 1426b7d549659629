//! `cargo xtask bench`: mcs-proxy beside the real kube-proxy; with a name, what a program costs, as a ratio to an empty one in the same run (`micro`); what looking for
//! silent flows costs (`collector`); how soon the maps follow the API server (`control`); how fast all of it is programmed, beside
//! kube-proxy, nft and iptables-restore (`sync`, of which the whole benchmark is one part).

use crate::{
    run::{cargo, command},
    setup::{self, Assets, Beside, Purpose},
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const LEGACY: &str = "/usr/sbin/xtables-legacy-multi";

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Benches {
    #[command(flatten)]
    traffic: TrafficOptions,
    #[command(subcommand)]
    other: Option<Bench>,
}

/// The benchmark itself.
#[derive(Clone, Debug, Args)]
struct TrafficOptions {
    #[command(flatten)]
    options: Options,
    /// Less than three minutes in place of less than half an hour: 1 and 1,000 Services, fewer rounds
    #[arg(long)]
    quick: bool,
    /// These alone, of direct, empty, kube-proxy-nftables, kube-proxy-iptables, packet, redirect, socket; separated by commas
    #[arg(long, value_name = "ARMS")]
    arms: Option<String>,
    /// These numbers of Services alone, separated by commas
    #[arg(long, value_name = "NUMBERS")]
    services: Option<String>,
    /// How often each arm is measured at each size
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<String>,
    /// Keep samples, table and picture with the sources, not in target/bench
    #[arg(long)]
    save: bool,
    /// Make table and picture anew from the samples of an earlier run
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    from: Option<PathBuf>,
    /// Measure direct and packet (or --arms) with wrk and iperf3 as well, and say how far their ratios and ours are apart
    #[arg(long, conflicts_with_all = ["quick", "services", "save", "from"])]
    cross_check: bool,
}

impl TrafficOptions {
    /// Whether this is the whole benchmark, not a part of it.
    const fn is_whole(&self) -> bool {
        let Self { arms, services, rounds, from, cross_check, .. } = self;
        arms.is_none() && services.is_none() && rounds.is_none() && from.is_none() && !*cross_check
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds and verified instructions of each program, by BPF_PROG_TEST_RUN
    Micro(MicroOptions),
    /// What looking for silent flows costs with 512k of them, and how soon those of a vanished interface are gone
    Collector,
    /// Full sync, start and one change with 10,000 Services of ten endpoints, beside nft, iptables-restore and kube-proxy
    Sync(SyncOptions),
    /// The control loop with 1,000 to 100,000 endpoints from a real API server, beside the real kube-proxy
    Control(ControlOptions),
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Options {
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ControlOptions {
    #[command(flatten)]
    options: Options,
    /// Numbers of Services, of ten endpoints each, separated by commas [default: 100,1000,10000]
    #[arg(long, value_name = "NUMBERS")]
    services: Option<String>,
    /// Slices changed, one after another [default: 300; for kube-proxy a tenth]
    #[arg(long, value_name = "NUMBER")]
    changes: Option<String>,
    /// Without kube-proxy
    #[arg(long)]
    alone: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct MicroOptions {
    #[command(flatten)]
    options: Options,
    /// Print the ratios beside those of the table that is kept with the sources
    #[arg(long, conflicts_with = "json")]
    compare: bool,
    /// Put this run's table in its place
    #[arg(long)]
    save: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SyncOptions {
    #[command(flatten)]
    options: Options,
    /// 1,000 Services, one round
    #[arg(long)]
    quick: bool,
    /// So many Services
    #[arg(long, value_name = "NUMBER")]
    services: Option<String>,
    /// How often everything is measured
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<String>,
    /// Keep samples and table with the sources, not in target/bench/sync
    #[arg(long)]
    save: bool,
    /// Make the table anew from the samples of an earlier run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "services", "rounds"])]
    from: Option<PathBuf>,
}

impl Benches {
    /// What has to be there.
    pub(crate) const fn purpose(&self) -> Purpose {
        match self.other {
            Some(Bench::Micro(_) | Bench::Collector | Bench::Control(_)) => Purpose::Test,
            Some(Bench::Sync(_)) | None => Purpose::Bench,
        }
    }
}

pub(crate) fn run(workspace: &Path, benches: &Benches) -> Result<()> {
    match &benches.other {
        Some(other) => run_other(workspace, other),
        None => whole(workspace, &benches.traffic),
    }
}

/// Traffic and, unless only a part was asked for, programming.
fn whole(workspace: &Path, asked: &TrafficOptions) -> Result<()> {
    let &TrafficOptions { options, quick, save, .. } = asked;
    let traffic = traffic(workspace, asked)?;
    if !asked.is_whole() {
        return finish(options, traffic);
    }
    let sync = || sync(workspace, &SyncOptions { options, quick, save, ..SyncOptions::default() });
    if !options.json {
        finish(options, traffic)?;
        return finish(options, sync()?);
    }
    let mut all = summary(traffic)?;
    let mut programming = summary(sync()?)?;
    if let Some(ratios) = programming["ratios"].as_object_mut() {
        let ratios = std::mem::take(ratios);
        all["ratios"].as_object_mut().context("no ratios")?.extend(ratios);
    }
    all["sync"] = json!({ "figures": programming["figures"] });
    println!("{all}");
    Ok(())
}

/// What a benchmark prints with `--json`.
fn summary(mut benches: Command) -> Result<Value> {
    let output = benches.arg("--json").stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the benchmark failed");
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn traffic(workspace: &Path, asked: &TrafficOptions) -> Result<Command> {
    let TrafficOptions { options: _, quick, arms, services, rounds, save, from, cross_check } = asked;
    let mut traffic = beside_kube_proxy(workspace, "traffic", from.as_deref())?;
    let flags = [("--quick", quick), ("--save", save), ("--cross-check", cross_check)];
    traffic.args(flags.into_iter().filter(|(_, is_asked)| **is_asked).map(|(flag, _)| flag));
    let values = [("--arms", arms), ("--services", services), ("--rounds", rounds)];
    traffic.args(values.into_iter().filter_map(|(flag, value)| Some([flag, value.as_deref()?])).flatten());
    Ok(traffic)
}

fn sync(workspace: &Path, asked: &SyncOptions) -> Result<Command> {
    let SyncOptions { options: _, quick, services, rounds, save, from } = asked;
    let mut sync = beside_kube_proxy(workspace, "sync", from.as_deref())?;
    // Its daemon's log is what it is timed by.
    sync.env("RUST_LOG", "info");
    let flags = [("--quick", quick), ("--save", save)];
    sync.args(flags.into_iter().filter(|(_, is_asked)| **is_asked).map(|(flag, _)| flag));
    let values = [("--services", services), ("--rounds", rounds)];
    sync.args(values.into_iter().filter_map(|(flag, value)| Some([flag, value.as_deref()?])).flatten());
    Ok(sync)
}

/// With kube-proxy's faster iptables; from the samples of a file, if one is named, with nothing.
fn beside_kube_proxy(workspace: &Path, name: &str, from: Option<&Path>) -> Result<Command> {
    if let Some(file) = from {
        let mut benches = benchmark(workspace, name);
        benches.arg("--from").arg(std::path::absolute(file)?);
        return Ok(benches);
    }
    let mut benches = beside_kubernetes(workspace, name)?;
    if let Some(folder) = legacy_iptables(workspace)? {
        let path = env::var_os("PATH").unwrap_or_default();
        benches.env("PATH", env::join_paths([folder].into_iter().chain(env::split_paths(&path)))?);
    }
    Ok(benches)
}

/// A folder with iptables-legacy as `iptables`, where the kernel still has it: it takes fewer cycles for a rule than
/// iptables-nft, so that kube-proxy is shown at its best.
fn legacy_iptables(workspace: &Path) -> Result<Option<PathBuf>> {
    let mut probe = command("unshare");
    let works = probe.args(["--net", LEGACY, "iptables-save", "-t", "nat"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let folder = setup::tools(workspace).join("iptables-legacy");
    fs::create_dir_all(&folder)?;
    for family in ["iptables", "ip6tables"] {
        for program in ["", "-save", "-restore"] {
            let link = folder.join(format!("{family}{program}"));
            if !link.exists() {
                symlink(LEGACY, link)?;
            }
        }
    }
    Ok(Some(folder))
}

fn run_other(workspace: &Path, bench: &Bench) -> Result<()> {
    match *bench {
        Bench::Sync(ref asked) => finish(asked.options, sync(workspace, asked)?),
        Bench::Micro(MicroOptions { options, compare, save }) => {
            let mut micro = benchmark(workspace, "micro");
            let flags = [("--compare", compare), ("--save", save)];
            micro.args(flags.into_iter().filter(|(_, is_asked)| *is_asked).map(|(flag, _)| flag));
            finish(options, micro)
        }
        Bench::Collector => finish(Options { json: false }, benchmark(workspace, "collector")),
        Bench::Control(ControlOptions { options, ref services, ref changes, alone }) => {
            let mut control = beside_kubernetes(workspace, "control")?;
            control.env("RUST_LOG", "info,mcs_proxy::source=debug,mcs_proxy::daemon=debug");
            for (flag, value) in [("--services", services), ("--changes", changes)] {
                control.args(value.iter().flat_map(|value| [flag, value.as_str()]));
            }
            control.args(alone.then_some("--alone"));
            finish(options, control)
        }
    }
}

/// With mcs-proxy as it is shipped, and with an API server and kube-proxy.
fn beside_kubernetes(workspace: &Path, name: &str) -> Result<Command> {
    setup::kube(workspace, Beside::Nothing)?;
    let program = build_release(workspace)?;
    let (Assets::Given(kube) | Assets::Ours(kube)) = setup::assets(workspace);
    let mut benches = benchmark(workspace, name);
    benches.env("MCS_PROXY_BIN", program).env("KUBEBUILDER_ASSETS", kube);
    Ok(benches)
}

fn benchmark(workspace: &Path, name: &str) -> Command {
    let mut benches = command(cargo());
    let arguments = ["bench", "--quiet", "--locked", "--package", "mcs-proxy-tests", "--bench", name, "--"];
    benches.current_dir(workspace).args(arguments);
    benches
}

fn finish(Options { json }: Options, mut benches: Command) -> Result<()> {
    if json {
        benches.arg("--json");
    }
    if !benches.status()?.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}

/// mcs-proxy as it is shipped.
fn build_release(workspace: &Path) -> Result<PathBuf> {
    let mut build = command(cargo());
    build.current_dir(workspace).args([
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "mcs-proxy",
    ]);
    if !build.status()?.success() {
        bail!("mcs-proxy did not build");
    }
    Ok(workspace.join("target/release/mcs-proxy"))
}
