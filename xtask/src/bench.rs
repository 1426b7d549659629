//! `cargo xtask bench`: what a program costs, as a ratio to an empty one in the same run (`micro`); what looking for
//! silent flows costs (`collector`); how soon the maps follow the API server (`control`).

use crate::{
    run::{cargo, command},
    setup::{self, Assets, Beside},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds and verified instructions of each program, by BPF_PROG_TEST_RUN
    Micro(MicroOptions),
    /// What looking for silent flows costs with 512k of them, and how soon those of a vanished interface are gone
    Collector,
    /// The control loop with 1,000 and 100,000 endpoints from a real API server, beside the real kube-proxy
    Control(Options),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
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

pub(crate) fn run(workspace: &Path, bench: Bench) -> Result<()> {
    match bench {
        Bench::Micro(MicroOptions { options, compare, save }) => {
            let mut micro = benchmark(workspace, "micro");
            let flags = [("--compare", compare), ("--save", save)];
            micro.args(flags.into_iter().filter(|(_, is_asked)| *is_asked).map(|(flag, _)| flag));
            finish(options, micro)
        }
        Bench::Collector => finish(Options { json: false }, benchmark(workspace, "collector")),
        Bench::Control(options) => {
            setup::kube(workspace, Beside::Nothing)?;
            let program = build_release(workspace)?;
            let (Assets::Given(kube) | Assets::Ours(kube)) = setup::assets(workspace);
            let mut control = benchmark(workspace, "control");
            control
                .env("MCS_PROXY_BIN", program)
                .env("KUBEBUILDER_ASSETS", kube)
                .env("RUST_LOG", "info,mcs_proxy::source=debug");
            finish(options, control)
        }
    }
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
