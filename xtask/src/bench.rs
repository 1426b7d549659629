//! `cargo xtask bench`: what is worth a number.

use crate::run::{cargo, command};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::path::Path;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds and verified instructions of each program, by BPF_PROG_TEST_RUN
    Micro(Options),
    /// What looking for silent flows costs with 512k of them, and how soon those of a vanished interface are gone
    Collector,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Print the ratios beside those of the table that is kept with the sources
    #[arg(long, conflicts_with = "json")]
    compare: bool,
    /// Put this run's table in its place
    #[arg(long)]
    save: bool,
}

pub(crate) fn run(workspace: &Path, bench: Bench) -> Result<()> {
    let (name, arguments) = match bench {
        Bench::Micro(Options { json, compare, save }) => {
            let flags = [("--json", json), ("--compare", compare), ("--save", save)];
            ("micro", flags.into_iter().filter(|(_, asked)| *asked).map(|(flag, _)| flag).collect::<Vec<_>>())
        }
        Bench::Collector => ("collector", Vec::new()),
    };
    let mut benches = command(cargo());
    benches
        .current_dir(workspace)
        .args(["bench", "--quiet", "--locked", "--package", "mcs-proxy-tests", "--bench", name, "--"])
        .args(arguments);
    if !benches.status()?.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
