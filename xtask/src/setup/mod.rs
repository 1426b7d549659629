//! `cargo xtask setup`: finds or installs the tools that a task needs. Silent when nothing is missing.
//!
//! What Debian has comes from Debian; the rest is built from the package registries' sources into `target/tools`.

mod arm64;
mod cluster;
mod debian;
mod go;
mod goclient;
mod guest;
mod kube;
mod programs;

use crate::{
    ebpf::{Compiler, linker},
    run::say,
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

pub(crate) use crate::run::Beside;
pub(crate) use arm64::{emulator, ensure as arm64};
pub(crate) use cluster::{ensure as cluster, folder as cluster_folder};
pub(crate) use goclient::{ensure as goclient, path as goclient_path};
pub(crate) use guest::{Guest, Kernel, ensure as guest};
pub(crate) use kube::{Assets, assets, ensure as kube};

/// What the tools are for; each includes the ones it builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Building mcs-proxy
    Build,
    /// The demo
    Demo,
    /// The tests; Kubernetes' programs apart, which [`kube()`] provides
    Test,
    /// The benchmark; Kubernetes' programs apart, as for the tests
    Bench,
    /// A cluster on this machine, and the tests on it: what those of `test` need, and [`cluster()`] provides the rest
    Cluster,
    /// Checking the dependencies
    Deny,
}

/// Where everything goes that is not Debian's.
pub(crate) fn tools(workspace: &Path) -> PathBuf {
    workspace.join("target/tools")
}

pub(crate) fn log(workspace: &Path, name: &str) -> PathBuf {
    tools(workspace).join("log").join(format!("{name}.log"))
}

/// # Errors
/// Something is missing and may not be installed here: what to do has then been printed.
pub(crate) fn run(workspace: &Path, purpose: Purpose) -> Result<()> {
    let folder = tools(workspace);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // Two tasks at once: one installs, the other waits and finds everything there.
    let lock = folder.join(".lock");
    let lock = File::create(&lock).with_context(|| lock.display().to_string())?;
    if lock.try_lock().is_err() {
        say("waiting for another `cargo xtask` to finish its set-up");
        lock.lock()?;
    }

    debian::ensure(workspace, &debian::packages(workspace, purpose))?;
    match purpose {
        Purpose::Build | Purpose::Demo | Purpose::Test | Purpose::Bench | Purpose::Cluster => {
            programs::bpf_linker(workspace)
        }
        Purpose::Deny => programs::cargo_deny(workspace),
    }
}

/// What `cargo xtask setup` itself says when all is well.
pub(crate) fn report(workspace: &Path, purpose: Purpose) {
    let compiler = match Compiler::find() {
        Some(Compiler::Debian) => "Debian's rustc-web, with its core for BPF".to_owned(),
        Some(Compiler::Nightly(toolchain)) => format!("{}, with build-std", toolchain.display()),
        None => "none".to_owned(),
    };
    say(format!("eBPF compiler: {compiler}"));
    say(format!("eBPF linker: {}", linker(workspace).display()));
    match (purpose, assets(workspace)) {
        (Purpose::Test | Purpose::Bench | Purpose::Cluster, Assets::Given(folder) | Assets::Ours(folder)) => {
            say(format!("Kubernetes' programs: {}", folder.display()));
        }
        (Purpose::Build | Purpose::Demo | Purpose::Deny, _) => {
            say("`cargo xtask test` also needs an API server, which it builds when it first runs.");
        }
    }
}
