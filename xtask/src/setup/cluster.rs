//! What a cluster takes beyond an API server, in `target/tools/cluster`: kubelet, scheduler, kubectl, helm and CoreDNS
//! from Go modules; containerd, runc and CNI's plugins as Debian has them.

use super::{debian, go, kube, log, tools};
use crate::run::{Beside, command, logged};
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
};

const HELM: &str = "v3.22.0";
const COREDNS: &str = "v1.15.0";
const DEBIAN: [&str; 3] = ["containerd", "runc", "containernetworking-plugins"];
/// The last file of each, by which they are known to be there.
const UNPACKED: [&str; 3] = ["usr/bin/containerd", "usr/sbin/runc", "usr/lib/cni/bridge"];

pub(crate) fn folder(workspace: &Path) -> PathBuf {
    tools(workspace).join("cluster")
}

/// Whether anything is still to be built with Go.
pub(super) fn needs_go(workspace: &Path) -> bool {
    let folder = folder(workspace);
    ["nodeparts", "helm", "coredns"].iter().any(|name| !folder.join(name).exists())
}

/// Finds or makes it all.
pub(crate) fn ensure(workspace: &Path, beside: Beside) -> Result<()> {
    let folder = folder(workspace);
    fs::create_dir_all(&folder)?;
    let unpacked = folder.join("debian");
    if UNPACKED.iter().any(|file| !unpacked.join(file).exists()) {
        debian::unpack(workspace, &DEBIAN, &unpacked, "a cluster's nodes run them")?;
    }
    kube::node(workspace, &folder, beside)?;
    let mut flags = format!("-s -w -X helm.sh/helm/v3/internal/version.version={HELM}");
    // Without these a template is rendered for Kubernetes 1.20.
    for package in ["lint/rules", "chartutil"] {
        for (number, value) in [("Major", "1"), ("Minor", "37")] {
            flags += &format!(" -X helm.sh/helm/v3/pkg/{package}.k8sVersion{number}={value}");
        }
    }
    module(workspace, "helm", "helm.sh/helm/v3/cmd/helm", HELM, &flags, beside)?;
    module(workspace, "coredns", "github.com/coredns/coredns", COREDNS, "-s -w", beside)
}

/// A program of a module of its own.
fn module(
    workspace: &Path,
    name: &str,
    package: &str,
    version: &str,
    flags: &str,
    beside: Beside,
) -> Result<()> {
    let folder = folder(workspace);
    let stamp = folder.join(format!("{name}.version"));
    if folder.join(name).exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == version) {
        return Ok(());
    }
    let go = go::ensure(workspace, beside)?;
    let mut install = command(go);
    install
        // Outside of any module, so that no go.mod has a say.
        .current_dir("/")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        // CoreDNS runs in an image of it alone.
        .env("CGO_ENABLED", "0")
        .env("GOBIN", &folder)
        .args(["install", "-trimpath", "-ldflags", flags, &format!("{package}@{version}")]);
    let what = format!("Building {name} {version} (about 3 minutes, the first time)");
    logged(&log(workspace, name), &what, &mut install, beside)?;
    Ok(fs::write(stamp, version)?)
}
