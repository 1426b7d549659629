//! `cargo xtask`: everything one does with this repository.

mod bench;
mod cluster;
mod demo;
mod deny;
mod ebpf;
mod image;
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
        /// Of the kernel that they are for
        #[arg(long, value_enum, default_value_t = image::Architecture::OURS)]
        arch: image::Architecture,
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
    /// Start a Kubernetes cluster on this machine, or end it; as root
    #[command(subcommand)]
    Cluster(cluster::Act),
    /// Measure mcs-proxy beside kube-proxy, or by a name something smaller; as root
    Bench(bench::Benches),
    /// Build the image of the static binary and its bill of materials
    Image(image::Options),
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
            if matches!(purpose, Purpose::Test | Purpose::Bench | Purpose::Cluster) {
                setup::kube(&workspace, Beside::Nothing)?;
            }
            if *purpose == Purpose::Cluster {
                setup::cluster(&workspace, Beside::Nothing)?;
            }
            setup::report(&workspace, *purpose);
            Ok(())
        }
        Task::Ebpf { arch, deny_warnings } => {
            setup::run(&workspace, Purpose::Build)?;
            ebpf::run(&workspace, *arch, *deny_warnings)
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
        Task::Cluster(act) => {
            require_root("the cluster")?;
            cluster::run(&workspace, act)
        }
        Task::Bench(benches) => {
            require_root("the benchmark")?;
            setup::run(&workspace, benches.purpose())?;
            bench::run(&workspace, benches)
        }
        Task::Image(options) => {
            setup::run(&workspace, Purpose::Build)?;
            image::run(&workspace, options)
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
