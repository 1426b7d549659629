//! What binaries for arm64 take on a machine that is none: a C compiler and library for it, and Rust's library, which Debian
//! has in its arm64 archive alone, for its own compiler.

use super::{debian, tools};
use crate::run::which;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// The compiler that the library is of.
const RUSTC: &str = "/usr/bin/rustc";
const LIBRARY: &str = "libstd-rust-web-dev";
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Runs single programs for it.
const EMULATOR: &str = "qemu-aarch64-static";

/// How to build for it.
#[derive(Debug)]
pub(crate) struct Cross {
    pub(crate) rustc: &'static str,
    /// Where that compiler finds Rust's library.
    pub(crate) sysroot: PathBuf,
    pub(crate) c_compiler: &'static str,
}

/// Finds or installs it.
pub(crate) fn ensure(workspace: &Path) -> Result<Cross> {
    ensure!(
        cfg!(target_arch = "x86_64") && Path::new(RUSTC).exists(),
        "binaries for arm64 are built on arm64, or on amd64 with Debian's rustc-web"
    );
    let missing = debian::ARM64.into_iter().filter(|package| !debian::installed(package)).collect();
    debian::ensure(workspace, &missing)?;
    let folder = tools(workspace).join("arm64");
    let sysroot = folder.join("usr");
    if !sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        debian::unpack_foreign(workspace, "arm64", &[LIBRARY], &folder, "Rust's library for arm64")?;
    }
    Ok(Cross { rustc: RUSTC, sysroot, c_compiler: "aarch64-linux-gnu-gcc" })
}

/// Finds or unpacks what runs programs for it here. Installed, the package would have the kernel run them all by it.
pub(crate) fn emulator(workspace: &Path) -> Result<PathBuf> {
    if let Some(found) = which(EMULATOR) {
        return Ok(found);
    }
    let folder = tools(workspace).join("emulator");
    let emulator = folder.join("usr/bin").join(EMULATOR);
    if !emulator.exists() {
        debian::unpack(workspace, &["qemu-user-static"], &folder, "programs for arm64 are tried with it")?;
    }
    Ok(emulator)
}
