//! Builds the eBPF programs and hands their object to the crate, which embeds it:
//! `include_bytes_aligned!(env!("MCS_PROXY_EBPF_OBJECT"))`.

#[path = "build/object.rs"]
mod object;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(object::Error::ToolsMissing) => {
            // cargo fails for the line alone; a failure of ours would bury it under this script's output.
            println!("cargo::error={}", object::Error::ToolsMissing);
            ExitCode::SUCCESS
        }
        Err(object::Error::Failed(message)) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), object::Error> {
    let member = variable("CARGO_MANIFEST_DIR")?;
    let workspace = member.parent().unwrap_or(&member);
    for path in inputs(workspace) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-env-changed={}", object::ROUTE);

    let architecture = env::var("CARGO_CFG_TARGET_ARCH")
        .map_err(|_| object::Error::Failed("CARGO_CFG_TARGET_ARCH is not set".into()))?;
    let built = object::build(workspace, &variable("CARGO")?, &architecture, &[])?;
    let embedded = variable("OUT_DIR")?.join("mcs-proxy-ebpf.o");
    fs::copy(&built, &embedded)
        .map_err(|error| format!("{} to {}: {error}", built.display(), embedded.display()))
        .map_err(object::Error::Failed)?;
    println!("cargo::rustc-env=MCS_PROXY_EBPF_OBJECT={}", embedded.display());
    Ok(())
}

/// What the object depends on. A missing tool is among them, so that its arrival is noticed.
fn inputs(workspace: &Path) -> Vec<PathBuf> {
    const SOURCES: [&str; 5] = [
        "mcs-proxy-ebpf/src",
        "mcs-proxy-ebpf/Cargo.toml",
        "mcs-proxy/build",
        "mcs-proxy/build.rs",
        "Cargo.lock",
    ];
    let mut inputs: Vec<_> = SOURCES.iter().map(|path| workspace.join(path)).collect();
    inputs.push(object::linker(workspace));
    inputs.push(PathBuf::from(object::DEBIAN_CORE));
    inputs
}

fn variable(name: &str) -> Result<PathBuf, object::Error> {
    let missing = || object::Error::Failed(format!("{name} is not set: not run by cargo?"));
    env::var_os(name).map(PathBuf::from).ok_or_else(missing)
}
