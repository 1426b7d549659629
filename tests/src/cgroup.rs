//! A cgroup of a test's own.

use crate::{cleanup, sys};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Removed with its value: by then the processes in it must have ended.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    root: PathBuf,
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
        Ok(Self { root: root.to_owned(), path })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the cgroup2 is mounted that this one is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Attaches a program to `connect4` that lets everything through, and no program beside itself. It goes with the cgroup.
    ///
    /// # Errors
    /// The kernel's.
    pub fn occupy_connect4(&self) -> Result<()> {
        let program = sys::load_permissive_connect4().context("a program for connect4")?;
        sys::attach_alone(&program, &File::open(&self.path)?).context("attaching it")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(failure) = fs::remove_dir(&self.path) {
            eprintln!("{}: {failure}", self.path.display());
        }
    }
}
