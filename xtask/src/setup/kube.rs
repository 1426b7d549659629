//! A real API server: etcd, kube-apiserver, kube-controller-manager and kube-proxy in one program, built from Go
//! modules (`tests/kubeparts`) into `target/tools/kube`; and in another what a whole cluster takes besides.

use super::{go, log, tools};
use crate::run::{Beside, command, logged};
use anyhow::{Context, Result, bail};
use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

const KUBERNETES: &str = "v1.37.2";
const SOURCES: &str = "tests/kubeparts";
/// What they were built from, beside them.
const STAMP: &str = "built-from";
const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy"];
const NODE_PARTS: [&str; 3] = ["kube-scheduler", "kubelet", "kubectl"];

/// A program that is several, by the name that it is called by.
struct MultiCall {
    name: &'static str,
    /// Its folder in [`SOURCES`].
    package: &'static str,
    parts: &'static [&'static str],
    what: &'static str,
}

const CONTROL: MultiCall = MultiCall {
    name: "kubeparts",
    package: ".",
    parts: &PARTS,
    what: "etcd and Kubernetes v1.37.2 for the tests (about 8 minutes, the first time)",
};
const NODE: MultiCall = MultiCall {
    name: "nodeparts",
    package: "./node",
    parts: &NODE_PARTS,
    what: "kubelet, kube-scheduler and kubectl v1.37.2 (about 3 minutes, the first time)",
};

/// The folder with Kubernetes' programs.
#[derive(Debug)]
pub(crate) enum Assets {
    /// `$KUBEBUILDER_ASSETS`, the convention of envtest.
    Given(PathBuf),
    Ours(PathBuf),
}

pub(crate) fn assets(workspace: &Path) -> Assets {
    env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()).map_or_else(
        || Assets::Ours(tools(workspace).join("kube")),
        |folder| Assets::Given(PathBuf::from(folder)),
    )
}

/// Finds or builds them.
pub(crate) fn ensure(workspace: &Path, beside: Beside) -> Result<()> {
    match assets(workspace) {
        Assets::Given(folder) => {
            let missing: Vec<_> = PARTS.into_iter().filter(|part| !folder.join(part).exists()).collect();
            if !missing.is_empty() {
                let folder = folder.display();
                bail!(
                    "KUBEBUILDER_ASSETS={folder} has no {}; unset it to have them built",
                    missing.join(", no ")
                );
            }
            Ok(())
        }
        Assets::Ours(folder) => build(workspace, &folder, &CONTROL, beside),
    }
}

/// Finds or builds what a node runs, and kubectl.
pub(super) fn node(workspace: &Path, folder: &Path, beside: Beside) -> Result<()> {
    build(workspace, folder, &NODE, beside)
}

/// Whether they are still to be built.
pub(crate) fn is_missing(workspace: &Path) -> bool {
    match assets(workspace) {
        Assets::Given(_) => false,
        Assets::Ours(folder) => {
            !sources(workspace, &CONTROL).is_ok_and(|sources| is_built(&folder, &sources))
        }
    }
}

fn is_built(folder: &Path, sources: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|built| built == sources)
}

/// Asking go whether anything changed takes seconds; comparing the sources with what was built takes none.
fn sources(workspace: &Path, program: &MultiCall) -> Result<String> {
    ["go.mod".to_owned(), "go.sum".to_owned(), format!("{}/main.go", program.package)]
        .map(|name| workspace.join(SOURCES).join(name))
        .iter()
        .map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()))
        .collect()
}

fn build(workspace: &Path, folder: &Path, program: &MultiCall, beside: Beside) -> Result<()> {
    let sources = sources(workspace, program)?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock()?;
    if is_built(folder, &sources) {
        return Ok(());
    }
    let go = go::ensure(workspace, beside)?;
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=37",
    );
    let what = format!("Building {}", program.what);
    let mut build = command(go);
    build
        .current_dir(workspace.join(SOURCES))
        .env("GOTOOLCHAIN", "local")
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
        .arg(folder.join(program.name))
        .arg(program.package);
    logged(&log(workspace, program.name), &what, &mut build, beside)?;

    for part in program.parts {
        let link = folder.join(part);
        if !link.exists() {
            symlink(program.name, &link).with_context(|| link.display().to_string())?;
        }
    }
    let stamp = folder.join(STAMP);
    fs::write(&stamp, sources).with_context(|| stamp.display().to_string())
}
