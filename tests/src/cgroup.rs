//! A cgroup of a test's own.

use crate::cleanup;
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Removed with its value: by then the processes in it must have ended.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// # Errors
    /// No cgroup2 is mounted, or the rights are missing (this takes root).
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let found = Command::new("findmnt").args(["-n", "-o", "TARGET", "-t", "cgroup2"]).output();
        let found = String::from_utf8(found.context("findmnt (of util-linux)")?.stdout)?;
        let root = Path::new(found.lines().next().context("no cgroup2 is mounted: `findmnt -t cgroup2`")?);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{number}", cleanup::run_name()));
        fs::create_dir(&path).with_context(|| format!("{} (are you root?)", path.display()))?;
        Ok(Self { path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(failure) = fs::remove_dir(&self.path) {
            eprintln!("{}: {failure}", self.path.display());
        }
    }
}
