//! `cargo xtask ebpf`.

#[path = "../../mcs-proxy/build/object.rs"]
mod object;

use crate::{image::Architecture, run::cargo};
use anyhow::{Context, Result, anyhow};
use std::{fs, path::Path};

pub(crate) use object::{Compiler, linker};

pub(crate) fn run(workspace: &Path, arch: Architecture, deny_warnings: bool) -> Result<()> {
    let extra: &[&str] = if deny_warnings { &["-Dwarnings"] } else { &[] };
    let object =
        object::build(workspace, &cargo(), arch.rust(), extra).map_err(|error| anyhow!("{error}"))?;
    let size = fs::metadata(&object).with_context(|| object.display().to_string())?.len();
    println!("{} {size} bytes", object.display());
    Ok(())
}
