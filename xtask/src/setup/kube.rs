//! A real API server: etcd, kube-apiserver, kube-controller-manager and kube-proxy in one program, built from Go
//! modules (`tests/kubeparts`) into `target/tools/kube`.

use super::{log, tools};
use crate::run::{Beside, command, logged, say, which};
use anyhow::{Context, Result, bail};
use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

const KUBERNETES: &str = "v1.37.2";
const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy"];
/// The least that a folder of someone else's must have.
const NEEDED: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];

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
            let missing: Vec<_> = NEEDED.into_iter().filter(|part| !folder.join(part).exists()).collect();
            if !missing.is_empty() {
                let folder = folder.display();
                bail!(
                    "KUBEBUILDER_ASSETS={folder} has no {}; unset it to have them built",
                    missing.join(", no ")
                );
            }
            Ok(())
        }
        Assets::Ours(folder) => build(workspace, &folder, beside),
    }
}

fn build(workspace: &Path, folder: &Path, beside: Beside) -> Result<()> {
    let source = workspace.join("tests/kubeparts");
    // Asking go whether anything changed takes seconds; comparing the sources with what was built takes none.
    let sources = ["go.mod", "go.sum", "main.go"]
        .map(|name| {
            fs::read_to_string(source.join(name)).with_context(|| source.join(name).display().to_string())
        })
        .into_iter()
        .collect::<Result<String>>()?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock()?;
    let stamp = folder.join("built-from");
    if fs::read_to_string(&stamp).is_ok_and(|built| built == sources) {
        return Ok(());
    }

    let Some(go) =
        which("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.exists()))
    else {
        say(
            "The tests run against a real API server, which is built from Go modules. Either install Go 1.26 or",
        );
        say("later (Debian 12's own is too old to build it), or point KUBEBUILDER_ASSETS at a folder with");
        say(format!("{}, and run the same command again.", NEEDED.join(", ")));
        bail!("Go is missing");
    };
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=37",
    );
    let what =
        format!("Building etcd and Kubernetes {KUBERNETES} for the tests (about 8 minutes, the first time)");
    let mut build = command(go);
    build
        .current_dir(&source)
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"])
        .arg(folder.join("kubeparts"))
        .arg(".");
    logged(&log(workspace, "kube"), &what, &mut build, beside)?;

    for part in PARTS {
        let link = folder.join(part);
        if !link.exists() {
            symlink("kubeparts", &link).with_context(|| link.display().to_string())?;
        }
    }
    fs::write(&stamp, sources).with_context(|| stamp.display().to_string())
}
