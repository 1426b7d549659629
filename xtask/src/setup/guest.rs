//! What `cargo xtask image --boot` takes: QEMU, and for the image's processor kernels of Debian's and a shell without libraries.

use super::{debian, tools};
use crate::{image::Architecture, run::which};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Debian 12's own, on which clsact filters stand in for TCX; and the newer one that it has as well.
const SERIES: [&str; 2] = ["6.1", "6.12"];
const SHELL: &str = "busybox-static";

#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) qemu: &'static str,
    pub(crate) busybox: PathBuf,
    pub(crate) kernels: Vec<Kernel>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` prints it.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The file of a module, or `None`: it is built in.
    pub(crate) fn module(&self, name: &str) -> Result<Option<PathBuf>> {
        let wanted = [format!("{name}.ko"), format!("{name}.ko.xz")];
        let mut folders = vec![self.modules.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if wanted.iter().any(|wanted| entry.file_name() == OsStr::new(wanted)) {
                    return Ok(Some(entry.path()));
                }
            }
        }
        Ok(None)
    }
}

/// Finds or installs it.
pub(crate) fn ensure(workspace: &Path, arch: Architecture) -> Result<Guest> {
    let (qemu, package) = match arch {
        Architecture::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Architecture::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    };
    if which(qemu).is_none() {
        debian::ensure(workspace, &BTreeSet::from([package]))?;
    }
    let folder = tools(workspace).join(format!("guest-{}", arch.oci()));
    let busybox = folder.join("bin/busybox");
    let mut kernels = kernels(&folder)?;
    if kernels.len() < SERIES.len() || !busybox.exists() {
        let packages: Vec<_> =
            SERIES.iter().map(|series| format!("linux-image-{series}.*-cloud-{}", arch.oci())).collect();
        let packages: Vec<_> = packages.iter().map(String::as_str).chain([SHELL]).collect();
        debian::unpack_foreign(workspace, arch.oci(), &packages, &folder, "QEMU boots them")?;
        kernels = self::kernels(&folder)?;
    }
    if kernels.is_empty() {
        bail!("no kernel in {}: remove it, and it is unpacked anew", folder.display());
    }
    Ok(Guest { qemu, busybox, kernels })
}

/// Those that are unpacked, by their names.
fn kernels(folder: &Path) -> Result<Vec<Kernel>> {
    let Ok(entries) = fs::read_dir(folder.join("boot")) else { return Ok(Vec::new()) };
    let mut kernels = Vec::new();
    for entry in entries {
        let image = entry?.path();
        let name = image.file_name().and_then(OsStr::to_str);
        let Some(release) = name.and_then(|name| name.strip_prefix("vmlinuz-")) else { continue };
        // /lib is a link to it where Debian is newer.
        let modules = ["lib/modules", "usr/lib/modules"].map(|modules| folder.join(modules).join(release));
        let modules = modules.into_iter().find(|modules| modules.is_dir());
        let release = release.to_owned();
        let modules = modules.with_context(|| format!("{} has no modules", image.display()))?;
        kernels.push(Kernel { release, image, modules });
    }
    kernels.sort_by(|one, other| one.release.cmp(&other.release));
    Ok(kernels)
}
