//! Programs that cargo builds from its registry, into `target/tools/bin`.

use super::{log, tools};
use crate::run::{Beside, cargo, command, logged};
use anyhow::{Context, Result};
use std::path::Path;

const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn has_bpf_linker(workspace: &Path) -> bool {
    has(workspace, "bpf-linker", BPF_LINKER)
}

pub(crate) fn bpf_linker(workspace: &Path) -> Result<()> {
    if has_bpf_linker(workspace) {
        return Ok(());
    }
    let mut install = install(workspace, "bpf-linker", BPF_LINKER);
    install
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM)
        .env("RUSTFLAGS", format!("-L{LLVM}/lib"));
    let what = format!("Building bpf-linker {BPF_LINKER}, which links eBPF programs (about 2 minutes)");
    logged(&log(workspace, "bpf-linker"), &what, &mut install, Beside::Nothing)
}

pub(crate) fn cargo_deny(workspace: &Path) -> Result<()> {
    if has(workspace, "cargo-deny", CARGO_DENY) {
        return Ok(());
    }
    let what = format!("Building cargo-deny {CARGO_DENY}, which checks the dependencies (about 3 minutes)");
    logged(
        &log(workspace, "cargo-deny"),
        &what,
        &mut install(workspace, "cargo-deny", CARGO_DENY),
        Beside::Nothing,
    )
}

fn install(workspace: &Path, name: &str, version: &str) -> std::process::Command {
    let mut install = command(cargo());
    install
        .args(["install", name, "--version", &format!("={version}"), "--locked", "--force", "--root"])
        .arg(tools(workspace))
        .arg("--target-dir")
        .arg(tools(workspace).join("build"));
    install
}

/// Whether a program is there, in this version, and runs: its libraries may have gone since it was built.
fn has(workspace: &Path, name: &str, version: &str) -> bool {
    let path = tools(workspace).join("bin").join(name);
    path.exists()
        && command(&path).arg("--version").output().with_context(|| path.display().to_string()).is_ok_and(
            |output| String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == version),
        )
}
