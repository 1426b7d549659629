//! `cargo xtask bench`: mcs-proxy beside the real kube-proxy; with a name, what a program costs, as a ratio to an empty one in the same run (`micro`); what looking for
//! silent flows costs (`collector`); how soon the maps follow the API server (`control`).

use crate::{
    run::{cargo, command},
    setup::{self, Assets, Beside, Purpose},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
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
    /// Less than three minutes in place of less than an hour: 1 and 1,000 Services, fewer rounds
    #[arg(long)]
    quick: bool,
    /// These alone, of direct, kube-proxy-nftables, kube-proxy-iptables, packet, redirect, socket; separated by commas
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
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds and verified instructions of each program, by BPF_PROG_TEST_RUN
    Micro(MicroOptions),
    /// What looking for silent flows costs with 512k of them, and how soon those of a vanished interface are gone
    Collector,
    /// The control loop with 1,000 to 100,000 endpoints from a real API server, beside the real kube-proxy
    Control(ControlOptions),
}

#[derive(Clone, Copy, Debug, Args)]
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

impl Benches {
    /// What has to be there.
    pub(crate) const fn purpose(&self) -> Purpose {
        if self.other.is_some() { Purpose::Test } else { Purpose::Bench }
    }
}

pub(crate) fn run(workspace: &Path, benches: &Benches) -> Result<()> {
    match benches.other.clone() {
        Some(other) => run_other(workspace, other),
        None => traffic(workspace, &benches.traffic),
    }
}

fn traffic(workspace: &Path, asked: &TrafficOptions) -> Result<()> {
    let TrafficOptions { options, quick, arms, services, rounds, save, from } = asked;
    let mut traffic = if from.is_some() {
        benchmark(workspace, "traffic")
    } else {
        beside_kubernetes(workspace, "traffic")?
    };
    if let Some(folder) = legacy_iptables(workspace)? {
        let path = env::var_os("PATH").unwrap_or_default();
        traffic.env("PATH", env::join_paths([folder].into_iter().chain(env::split_paths(&path)))?);
    }
    let flags = [("--quick", quick), ("--save", save)];
    traffic.args(flags.into_iter().filter(|(_, is_asked)| **is_asked).map(|(flag, _)| flag));
    let values = [("--arms", arms), ("--services", services), ("--rounds", rounds)];
    traffic.args(values.into_iter().filter_map(|(flag, value)| Some([flag, value.as_deref()?])).flatten());
    if let Some(file) = from {
        traffic.arg("--from").arg(std::path::absolute(file)?);
    }
    finish(*options, traffic)
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

fn run_other(workspace: &Path, bench: Bench) -> Result<()> {
    match bench {
        Bench::Micro(MicroOptions { options, compare, save }) => {
            let mut micro = benchmark(workspace, "micro");
            let flags = [("--compare", compare), ("--save", save)];
            micro.args(flags.into_iter().filter(|(_, is_asked)| *is_asked).map(|(flag, _)| flag));
            finish(options, micro)
        }
        Bench::Collector => finish(Options { json: false }, benchmark(workspace, "collector")),
        Bench::Control(ControlOptions { options, services, changes, alone }) => {
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
