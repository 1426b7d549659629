//! `cargo xtask deny`.

use crate::{
    run::{cargo, command},
    setup,
};
use anyhow::{Result, bail};
use std::path::Path;

pub(crate) fn run(workspace: &Path) -> Result<()> {
    // What deny.toml says about advisories holds here: they are asked for by hand.
    let status = command(setup::tools(workspace).join("bin/cargo-deny"))
        .current_dir(workspace)
        .env("CARGO", cargo())
        .args(["--workspace", "--all-features", "--locked", "check", "bans", "licenses", "sources"])
        .status()?;
    if !status.success() {
        bail!("cargo-deny found what deny.toml does not allow");
    }
    Ok(())
}
