//! Tests that are small in every run, and large, with figures, in those that `cargo xtask test --long` starts.

use anyhow::{Context, Result};
use std::{env, fs::OpenOptions, io::Write as _};

/// The variable that names the file for the figures, if the tests are to be large.
pub const LONG: &str = "MCS_PROXY_LONG";

/// Whether the tests are to be large.
#[must_use]
pub fn is_long() -> bool {
    env::var_os(LONG).is_some()
}

/// A line that tells what a test has measured; shown at the end of a long run.
///
/// # Errors
/// The file cannot be written.
pub fn figure(line: &str) -> Result<()> {
    println!("{line}");
    let Some(path) = env::var_os(LONG) else { return Ok(()) };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    writeln!(file.with_context(|| path.display().to_string())?, "{line}")?;
    Ok(())
}
