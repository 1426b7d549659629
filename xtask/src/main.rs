//! `cargo xtask`: everything one does with this repository.

mod bench;
mod demo;
mod deny;
mod ebpf;
mod run;
mod setup;
mod test;

use crate::run::require_root;
use anyhow::Result;
use clap::{Parser, Subcommand};
use setup::{Beside, Purpose};
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Everything one does with this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install the tools; every other task does so by itself
    Setup {
        /// What the tools are for
        #[arg(long = "for", value_enum, default_value_t = Purpose::Demo)]
        purpose: Purpose,
    },
    /// Build the eBPF programs alone and print the path and size of the object
    Ebpf {
        /// Fail on the compiler's warnings too
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Watch one Service's connections split over clusters of network namespaces
    Demo(demo::Options),
    /// Run the tests, all of them or those whose names contain one of the given words; as root
    Test {
        /// Parts of names
        names: Vec<String>,
        /// The tests of faults as large as they can be, which takes hours, and their figures at the end
        #[arg(long)]
        long: bool,
    },
    /// Measure mcs-proxy beside kube-proxy, or by a name something smaller; as root
    Bench(bench::Benches),
    /// Check licences, sources and duplicates of the dependencies with cargo-deny
    Deny,
}

fn main() -> ExitCode {
    let Arguments { task } = Arguments::parse();
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What Ctrl-C ended is no error of its own, and ends with the signal's exit code.
            mcs_proxy_tests::stop_if_interrupted();
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    let workspace = workspace();
    match task {
        Task::Setup { purpose } => {
            setup::run(&workspace, *purpose)?;
            if matches!(purpose, Purpose::Test | Purpose::Bench) {
                setup::kube(&workspace, Beside::Nothing)?;
            }
            setup::report(&workspace, *purpose);
            Ok(())
        }
        Task::Ebpf { deny_warnings } => {
            setup::run(&workspace, Purpose::Build)?;
            ebpf::run(&workspace, *deny_warnings)
        }
        Task::Demo(options) => {
            require_root("the demo")?;
            if options.needs_tools() {
                setup::run(&workspace, Purpose::Demo)?;
            }
            demo::run(&workspace, *options)
        }
        Task::Test { names, long } => {
            require_root("the test harness")?;
            setup::run(&workspace, Purpose::Test)?;
            test::run(&workspace, names, *long)
        }
        Task::Bench(benches) => {
            require_root("the benchmark")?;
            setup::run(&workspace, benches.purpose())?;
            bench::run(&workspace, benches)
        }
        Task::Deny => {
            setup::run(&workspace, Purpose::Deny)?;
            deny::run(&workspace)
        }
    }
}

/// The workspace's folder: the parent of this crate's.
fn workspace() -> PathBuf {
    let crate_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().map_or(crate_folder.clone(), PathBuf::from)
}
