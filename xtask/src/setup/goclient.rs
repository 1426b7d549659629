//! A client in Go for the tests (`tests/goclient`), built into `target/tools/bin`.

use super::{go, log, tools};
use crate::run::{Beside, command, logged};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

const SOURCES: &str = "tests/goclient";

pub(crate) fn path(workspace: &Path) -> PathBuf {
    tools(workspace).join("bin/goclient")
}

/// What it was built from, beside it.
fn stamp(workspace: &Path) -> PathBuf {
    tools(workspace).join("bin/goclient.built-from")
}

/// Whether it is still to be built.
pub(super) fn is_missing(workspace: &Path) -> bool {
    !path(workspace).exists()
        || sources(workspace)
            .is_ok_and(|sources| fs::read_to_string(stamp(workspace)).ok().as_ref() != Some(&sources))
}

fn sources(workspace: &Path) -> Result<String> {
    ["go.mod", "main.go"]
        .map(|name| workspace.join(SOURCES).join(name))
        .iter()
        .map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()))
        .collect()
}

/// Builds it if it is not there.
pub(crate) fn ensure(workspace: &Path, beside: Beside) -> Result<()> {
    let folder = tools(workspace).join("bin");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = File::create(folder.join(".goclient.lock"))?;
    lock.lock()?;
    if !is_missing(workspace) {
        return Ok(());
    }
    let mut build = command(go::ensure(workspace, beside)?);
    build
        .current_dir(workspace.join(SOURCES))
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(path(workspace))
        .arg(".");
    logged(&log(workspace, "goclient"), "Building the tests' client in Go", &mut build, beside)?;
    let stamp = stamp(workspace);
    fs::write(&stamp, sources(workspace)?).with_context(|| stamp.display().to_string())
}
