//! `cargo xtask image`: an image of the static binary alone, with a list of what is in it. Takes no container engine.
//!
//! The same commit and tools make the same image, to the byte: times are `$SOURCE_DATE_EPOCH`, else the commit's, and
//! paths of this machine are kept out.

mod archive;
mod bill;
mod boot;
mod program;
mod trial;

use crate::run::say;
use anyhow::{Context, Result};
use archive::Content;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use program::MCS_PROXY;
pub(crate) use program::{Architecture, HELLO_POD, PAUSE, Profile, build as static_program};

/// Larger than this is a mistake.
const LIMIT: u64 = 30 << 20;
/// Where the program is in its image.
const PATH: &str = "/usr/bin/mcs-proxy";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Its name, where it is to be pushed to [default: localhost/mcs-proxy:VERSION]
    #[arg(long, value_name = "NAME:TAG", value_parser = tagged)]
    name: Option<String>,
    /// The processors that it is for [default: this machine's]
    #[arg(long, value_enum, default_value_t = Architecture::OURS, hide_default_value = true)]
    arch: Architecture,
    /// Folder for the archive and the bill of materials [default: target/image/ARCH]
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Try it as well on Debian's kernels for these processors, in QEMU (a minute or more each)
    #[arg(long)]
    boot: bool,
}

/// A name with a tag: without one the archive could be read but not be asked for. The colon of a registry's port is none.
fn tagged(name: &str) -> Result<String, String> {
    let is_tag = |tag: &str| {
        let mut bytes = tag.bytes();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
    };
    match name.rsplit_once(':') {
        Some((repository, tag)) if !repository.is_empty() && is_tag(tag) => Ok(name.to_owned()),
        _ => Err(format!("not as {} is", default_name())),
    }
}

/// Builds it and says where it is.
pub(crate) fn run(workspace: &Path, options: &Options) -> Result<()> {
    let arch = options.arch;
    let folder = options.output.clone().unwrap_or_else(|| folder(workspace, arch));
    let name = options.name.clone().unwrap_or_else(default_name);
    let built = mcs_proxy(workspace, arch, &name, &folder)?;
    println!("{name} {} {} bytes", built.digest, built.size);
    println!("  image              {}", built.archive.display());
    println!("  bill of materials  {}", built.bill.display());
    if options.boot {
        boot::run(workspace, arch, &built.program)?;
    }
    say(
        "`docker load`, `podman load` and `ctr images import` read it, `skopeo copy oci-archive:…` pushes it.",
    );
    Ok(())
}

/// The archive of the image for this machine, under its default name.
pub(crate) fn shipped(workspace: &Path) -> Result<PathBuf> {
    let arch = Architecture::OURS;
    Ok(mcs_proxy(workspace, arch, &default_name(), &folder(workspace, arch))?.archive)
}

/// The static binary of the image for this machine.
pub(crate) fn shipped_program(workspace: &Path) -> Result<PathBuf> {
    static_program(workspace, Architecture::OURS, Profile::Release, &MCS_PROXY)
}

/// What the chart asks for if it is told nothing else.
fn default_name() -> String {
    format!("localhost/mcs-proxy:{VERSION}")
}

fn folder(workspace: &Path, arch: Architecture) -> PathBuf {
    workspace.join("target/image").join(arch.oci())
}

#[derive(Debug)]
struct Built {
    program: PathBuf,
    archive: PathBuf,
    bill: PathBuf,
    /// Of the manifest, by which a registry and a node know it.
    digest: String,
    size: u64,
}

/// The image of mcs-proxy that is shipped.
fn mcs_proxy(workspace: &Path, arch: Architecture, name: &str, folder: &Path) -> Result<Built> {
    let program = static_program(workspace, arch, Profile::Release, &MCS_PROXY)?;
    trial::run(workspace, arch, &program)?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let created = created(workspace)?;

    let bill = folder.join("mcs-proxy.cdx.json");
    fs::write(&bill, bill::write(workspace, arch, created)?).with_context(|| bill.display().to_string())?;

    let content = Content { name, program: &program, path: PATH, arch, created };
    let archive = folder.join("mcs-proxy.tar");
    // Whoever reads the one of before reads it to its end.
    let partial = folder.join("mcs-proxy.tar.partial");
    let digest = archive::write(&partial, &content)?;
    fs::rename(&partial, &archive).with_context(|| archive.display().to_string())?;
    let size = fs::metadata(&archive)?.len();
    anyhow::ensure!(size < LIMIT, "{} has {size} bytes; the limit is {LIMIT}", archive.display());
    Ok(Built { program, archive, bill, digest, size })
}

/// An image of any static program, if what is there is older than the program.
pub(crate) fn of_program(name: &str, program: &Path, path: &str, archive: &Path) -> Result<()> {
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let program_changed = changed(program).with_context(|| program.display().to_string())?;
    if changed(archive).is_ok_and(|written| written > program_changed) {
        return Ok(());
    }
    let content = Content { name, program, path, arch: Architecture::OURS, created: 0 };
    archive::write(archive, &content).map(drop)
}

/// When the image says it was made, in seconds since 1970.
fn created(workspace: &Path) -> Result<u64> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().with_context(|| format!("SOURCE_DATE_EPOCH={epoch}: not a number of seconds"));
    }
    let commit = Command::new("git")
        .current_dir(workspace)
        .args(["log", "-1", "--format=%ct"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
    // Sources without a history, as in a tarball.
    Ok(commit.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_refused_with_an_example_of_one_that_has_it() {
        for name in ["mcs-proxy:1", "registry.example:5000/net/mcs-proxy:0.1.0-rc.1"] {
            assert_eq!(tagged(name).as_deref(), Ok(name));
        }
        for name in ["mcs-proxy", "registry.example:5000/net/mcs-proxy", "mcs-proxy:", ":1"] {
            assert_eq!(tagged(name), Err(format!("not as localhost/mcs-proxy:{VERSION} is")), "{name}");
        }
    }
}
