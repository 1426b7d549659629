//! Who writes: one daemon a pin directory, as a second one would write the same maps, and one a run directory, for the
//! names. The lock file in the run directory tells whoever is refused who holds it.

use crate::dataplane::pins::PinDir;
use anyhow::Context as _;
use mcs_proxy_ebpf::abi::ABI_VERSION;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};
use tracing::warn;

/// In the run directory.
pub const FILE: &str = "lock";

/// What the lock file tells of the daemon that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub version: String,
    /// The pod's name, where it runs in one that tells it (`POD_NAME`).
    pub pod: Option<String>,
    pub process: u32,
    /// Of which layout its pins are.
    #[serde(default)]
    pub layout: u32,
    /// The kernel's since it was booted.
    #[serde(default)]
    pub boot: String,
    /// RFC 3339
    pub started: String,
}

/// Held for as long as it lives.
#[derive(Debug)]
pub struct Locks {
    files: Vec<File>,
    /// Who held them before.
    before: Option<Holder>,
}

impl Locks {
    #[must_use]
    pub const fn before(&self) -> Option<&Holder> {
        self.before.as_ref()
    }

    /// Says who holds them now. Where that cannot be written, as on a disk that is full, they are held all the same.
    pub fn sign(&mut self, holder: &Holder, run_dir: &Path) {
        let Some(file) = self.files.last_mut() else { return };
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(serde_json::to_string(holder)?.as_bytes())
        };
        if let Err(failure) = write() {
            warn!(
                "{}: {failure}; a second daemon will be refused, but not told which one runs: make room there",
                run_dir.join(FILE).display()
            );
        }
    }
}

/// Someone else holds a lock.
#[derive(Debug, thiserror::Error)]
#[error("{path}: another mcs-proxy runs on this node with the same {flag}{holder}; {way_out}", holder = told(.holder.as_ref()))]
pub struct Held {
    path: PathBuf,
    flag: &'static str,
    holder: Option<Holder>,
    way_out: &'static str,
}

impl Holder {
    /// This process, as of now.
    #[must_use]
    pub fn of_this_process(pod: Option<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pod,
            process: process::id(),
            layout: ABI_VERSION,
            boot: boot_id(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, pod, process, layout: _, boot: _, started } = self;
        if let Some(pod) = pod {
            write!(formatter, "pod {pod}, ")?;
        }
        write!(formatter, "version {version}, process {process}, started {started}")
    }
}

/// Another one after each boot of the kernel; empty if it does not tell.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn told(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" ({holder})"))
}

/// For a daemon: makes both directories and locks them.
///
/// # Errors
/// [`Held`], or the directories are of no use.
pub fn hold(pin_dir: &PinDir, run_dir: &Path) -> anyhow::Result<Locks> {
    fs::create_dir_all(run_dir)
        .with_context(|| format!("{}: cannot be made; name another place by --run-dir", run_dir.display()))?;
    let path = run_dir.join(FILE);
    // Not emptied: whoever holds it has written who it is.
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).with_context(
            || format!("{}: cannot be made; name another place by --run-dir", path.display()),
        )?;
    let way_out = "end it, or use another --pin-dir";
    let mut names = lock(file, &path, "--run-dir", way_out)?;
    pin_dir.create_root()?;
    let path = pin_dir.root();
    let directory = File::open(path).with_context(|| path.display().to_string())?;
    let pins = lock(directory, path, "--pin-dir", way_out)?;
    let before = read(&mut names);
    Ok(Locks { files: vec![pins, names], before })
}

/// For whoever takes away what no daemon uses any more: locks what is there, and makes nothing.
///
/// # Errors
/// [`Held`], or what is there cannot be opened.
pub fn hold_what_is_there(pin_dir: &PinDir, run_dir: &Path) -> anyhow::Result<Locks> {
    let way_out =
        "end it first (kubectl delete, systemctl stop), or take its programs away under it by --force";
    let mut files = Vec::new();
    for (path, flag) in [(run_dir.join(FILE), "--run-dir"), (pin_dir.root().to_owned(), "--pin-dir")] {
        match File::open(&path) {
            Ok(file) => files.push(lock(file, &path, flag, way_out)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    Ok(Locks { files, before: None })
}

/// What the lock file of a run directory tells of who holds it, or held it last.
fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The pin directory cannot hold a file to lock, but be locked itself.
fn lock(mut file: File, path: &Path, flag: &'static str, way_out: &'static str) -> anyhow::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Held { path: path.to_owned(), flag, holder: read(&mut file), way_out }.into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}
