//! `cargo xtask bench micro`: what a program costs, as a ratio to an empty one in the same run.

use crate::run::{cargo, command};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::path::Path;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds and verified instructions of each program, by BPF_PROG_TEST_RUN
    Micro(Options),
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(workspace: &Path, bench: Bench) -> Result<()> {
    let Bench::Micro(Options { json }) = bench;
    let mut benches = command(cargo());
    benches.current_dir(workspace).args([
        "bench",
        "--quiet",
        "--locked",
        "--package",
        "mcs-proxy-tests",
        "--bench",
        "micro",
        "--",
    ]);
    if json {
        benches.arg("--json");
    }
    if !benches.status()?.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
