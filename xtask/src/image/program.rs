//! Static binaries, which run in an image without anything else.
//!
//! glibc is linked in: Rust's own target with `crt-static`, so that no other C library and no other target is needed.
//! Since glibc 2.34 looking up names needs no library at run time either.

use crate::{
    run::{cargo, command, say},
    setup,
};
use anyhow::{Context, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
};

/// A processor that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub(crate) const OURS: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// As Go, and so OCI and Kubernetes, call it.
    pub(crate) const fn oci(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it.
    pub(crate) const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// As ELF numbers it.
    pub(super) const fn elf(self) -> u16 {
        match self {
            Self::Amd64 => object::elf::EM_X86_64,
            Self::Arm64 => object::elf::EM_AARCH64,
        }
    }

    pub(super) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// A program of the workspace.
#[derive(Debug)]
pub(crate) struct Program {
    package: &'static str,
    name: &'static str,
}

pub(crate) const MCS_PROXY: Program = Program { package: "mcs-proxy", name: "mcs-proxy" };
pub(crate) const HELLO_POD: Program = Program { package: "mcs-proxy-tests", name: "hello-pod" };
pub(crate) const PAUSE: Program = Program { package: "mcs-proxy-tests", name: "pause" };

/// Cargo's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What is shipped.
    Release,
    /// What only tests run: built in a fraction of the time.
    Dev,
}

/// Builds it and returns its path.
pub(crate) fn build(
    workspace: &Path,
    arch: Architecture,
    profile: Profile,
    program: &Program,
) -> Result<PathBuf> {
    let Program { package, name } = program;
    let target = arch.target();
    let mut folder = workspace.join("target/static");
    let (profile, made) = match profile {
        Profile::Release => ("release", "release"),
        Profile::Dev => ("dev", "debug"),
    };
    if arch != Architecture::OURS {
        // With another compiler: neither waits for the other.
        folder.push(arch.oci());
    }
    say(format!("cargo build --profile {profile} --bin {name} (static, {})", arch.oci()));
    let mut build = command(cargo());
    build
        .current_dir(workspace)
        .args(["build", "--locked", "--profile", profile, "--package", package, "--bin", name])
        .args(["--target", target])
        // Nobody looks at it in there, and it is several times the rest.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .arg("--target-dir")
        .arg(&folder)
        .env_remove("RUSTFLAGS");
    let mut flags = flags(workspace);
    if arch != Architecture::OURS {
        let cross = setup::arm64(workspace)?;
        flags.push(format!("--sysroot={}", cross.sysroot.display()));
        flags.push(format!("-Clinker={}", cross.c_compiler));
        build.env("RUSTC", cross.rustc).env("CC_aarch64_unknown_linux_gnu", cross.c_compiler);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if !build.status().context("cargo")?.success() {
        bail!("{name} did not build for {target}");
    }
    Ok(folder.join(target).join(made).join(name))
}

fn flags(workspace: &Path) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    // Messages of panics name sources: the same binary wherever they lie.
    flags.push(format!("--remap-path-prefix={}=mcs-proxy", workspace.display()));
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags
}
