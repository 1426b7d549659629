//! A Go compiler that is new enough for Kubernetes.
//!
//! Where the machine's own is too old (Debian 12's is), it fetches a newer one as Go itself does from 1.21 on: as the
//! module `golang.org/toolchain`, checked against Go's checksum database. Go's switching by itself is not relied on,
//! since older ones lack it and newer ones may have it off.

use super::{log, tools};
use crate::run::{Beside, command, logged, say, which};
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What Kubernetes' go.mod asks for.
const NEEDED: (u32, u32) = (1, 26);
const FETCHED: &str = "1.26.8";

/// Any Go, whatever its age.
pub(crate) fn any() -> Option<PathBuf> {
    which("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.exists()))
}

/// A Go that is new enough: the machine's, else one of our own.
pub(crate) fn ensure(workspace: &Path, beside: Beside) -> Result<PathBuf> {
    let own = tools(workspace).join("go/bin/go");
    let Some(found) = any() else {
        say(
            "The tests run against a real API server, which is built from Go modules. Install Go 1.26 or later,",
        );
        say(
            "or point KUBEBUILDER_ASSETS at a folder with etcd, kube-apiserver, kube-controller-manager and kube-proxy,",
        );
        say("and run the same command again.");
        bail!("Go is missing");
    };
    if is_new_enough(&found) {
        return Ok(found);
    }
    if !is_new_enough(&own) {
        fetch(workspace, &found, beside)?;
    }
    Ok(own)
}

fn is_new_enough(go: &Path) -> bool {
    let output = command(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
    output.is_ok_and(|output| {
        version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|have| have >= NEEDED)
    })
}

/// `go1.26.8` → (1, 26)
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(|other: char| !other.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn fetch(workspace: &Path, go: &Path, beside: Beside) -> Result<()> {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("Go {FETCHED} is not fetched for {other}; install Go 1.26 or later"),
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{FETCHED}.linux-{architecture}");
    let what =
        format!("Fetching Go {FETCHED} as a Go module, since the machine's Go is too old for Kubernetes");
    let mut download = command(go);
    // Outside of any module, so that no go.mod has a say.
    download.current_dir("/").env("GOFLAGS", "").args(["mod", "download", &module]);
    logged(&log(workspace, "go"), &what, &mut download, beside)?;

    let output = command(go).args(["env", "GOMODCACHE"]).output()?;
    let cached = Path::new(String::from_utf8(output.stdout)?.trim()).join(&module);
    // The module cache is read-only, and modules keep no execute bits.
    let folder = tools(workspace).join("go");
    let copied =
        command("cp").args(["--recursive", "--no-preserve=mode"]).arg(&cached).arg(&folder).status()?;
    if !copied.success() {
        bail!("{} was not copied to {}", cached.display(), folder.display());
    }
    let programs = [folder.join("bin"), folder.join(format!("pkg/tool/linux_{architecture}"))];
    for entry in programs.iter().map(fs::read_dir).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        let path = entry?.path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| path.display().to_string())?;
    }
    // A module may not have modules inside, so theirs are under another name.
    for module in ["src", "src/cmd"] {
        let renamed = folder.join(module).join("_go.mod");
        if renamed.exists() {
            fs::rename(&renamed, folder.join(module).join("go.mod"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        assert_eq!(version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert!(version("go1.9.3") < Some(NEEDED));
        assert_eq!(version("devel +abc"), None);
    }
}
