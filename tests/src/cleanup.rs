//! What a run leaves on the machine, and how it goes away: normally when its owner is dropped, a panic included;
//! else on Ctrl-C; else, after a SIGKILL, when the next run starts.
//!
//! Every run has a name, `mcsp-<pid>`. It begins the names of the run's network namespaces, pin directories and cgroups, and of
//! its folders in `/run`. A run whose process is gone is dead, unless it was kept on purpose.

use crate::{cluster, sys};
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const PREFIX: &str = "mcsp-";
const RUNS: &str = "/run";
const NAMESPACES: &str = "/run/netns";
const BPF: &str = "/sys/fs/bpf";
/// In a run's folder: it stays although its process is gone; holds the ids and start times of its processes.
const KEPT: &str = "kept";

/// Processes that this run has started and that still need ending.
static PROCESSES: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
static KEEP: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static START: Once = Once::new();

/// The name of this process's run.
pub(crate) fn run_name() -> String {
    format!("{PREFIX}{}", process::id())
}

/// The folder for this run's files.
pub(crate) fn run_folder() -> PathBuf {
    Path::new(RUNS).join(run_name())
}

/// Removes what dead runs have left, and from now on cleans up before Ctrl-C ends this process.
pub(crate) fn start() -> Result<()> {
    let mut result = Ok(());
    START.call_once(|| result = remove_dead_runs().and_then(|()| watch_signals()));
    result
}

fn watch_signals() -> Result<()> {
    let mut pipe = sys::signal_pipe().context("signal handlers")?;
    thread::spawn(move || {
        let mut byte = [0];
        while let Err(error) = pipe.read_exact(&mut byte) {
            if error.kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("\ninterrupted: cleaning up");
        KEEP.store(false, Ordering::Relaxed);
        remove_own();
        process::exit(130);
    });
    Ok(())
}

/// Stops the calling thread for good if this process is about to end: nothing new is set up while we clean up.
pub fn stop_if_interrupted() {
    while INTERRUPTED.load(Ordering::Relaxed) {
        thread::park();
    }
}

pub(crate) fn note_process(pid: u32) {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

pub(crate) fn forget_process(pid: u32) {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Ends one process that we started: kindly, then not.
pub(crate) fn end_process(pid: u32) {
    let start = Instant::now();
    let mut signal = libc::SIGTERM;
    while is_running(pid) {
        if start.elapsed() > Duration::from_secs(5) {
            signal = libc::SIGKILL;
        }
        if sys::kill(pid, signal).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Alive, and not a zombie.
fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X")))
}

/// The fields of `/proc/PID/stat` from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// When a process started, in ticks since boot: with its id it names a process for good.
fn start_time(pid: u32) -> Option<String> {
    stat(pid)?.get(19).cloned()
}

/// Removes everything of this run, unless it is to be kept.
pub(crate) fn remove_own() {
    if KEEP.load(Ordering::Relaxed) {
        return;
    }
    let processes = std::mem::take(&mut *PROCESSES.lock().unwrap_or_else(PoisonError::into_inner));
    // The last one that was started depends on those before.
    processes.into_iter().rev().for_each(end_process);
    remove_traces(&run_name());
}

/// Leaves this run standing after its process has ended.
///
/// # Errors
/// The note of its processes cannot be written.
pub(crate) fn keep() -> Result<()> {
    let processes = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    let notes: String =
        processes.iter().filter_map(|&pid| start_time(pid).map(|start| format!("{pid} {start}\n"))).collect();
    let path = run_folder().join(KEPT);
    fs::write(&path, notes).with_context(|| path.display().to_string())?;
    KEEP.store(true, Ordering::Relaxed);
    Ok(())
}

/// Removes the runs that were kept, and returns their names.
///
/// # Errors
/// `/run` cannot be read.
pub fn tear_down_kept() -> Result<Vec<String>> {
    let kept = kept_runs()?;
    for run in &kept {
        let notes = fs::read_to_string(Path::new(RUNS).join(run).join(KEPT)).unwrap_or_default();
        for note in notes.lines().rev() {
            let Some((pid, start)) = note.split_once(' ') else { continue };
            let Ok(pid) = pid.parse() else { continue };
            // The id may be another process's by now.
            if start_time(pid).as_deref() == Some(start) {
                end_process(pid);
            }
        }
        remove_traces(run);
    }
    Ok(kept)
}

/// The names of the runs that were kept.
///
/// # Errors
/// `/run` cannot be read.
pub fn kept_runs() -> Result<Vec<String>> {
    Ok(runs()?.into_iter().filter(|run| Path::new(RUNS).join(run).join(KEPT).exists()).collect())
}

fn remove_dead_runs() -> Result<()> {
    for run in runs()? {
        let alive = Path::new("/proc").join(run.trim_start_matches(PREFIX)).exists();
        if !alive && !Path::new(RUNS).join(&run).join(KEPT).exists() {
            remove_traces(&run);
        }
    }
    Ok(())
}

/// The runs that have left anything on this machine.
fn runs() -> Result<BTreeSet<String>> {
    let mut runs = BTreeSet::new();
    for folder in [RUNS, NAMESPACES, BPF] {
        runs.extend(names(folder).filter_map(|name| run_of(&name)));
    }
    Ok(runs)
}

/// `mcsp-12-member1` → `mcsp-12`.
fn run_of(name: &str) -> Option<String> {
    let number = name.strip_prefix(PREFIX)?.split('-').next()?;
    number.parse::<u32>().ok().map(|number| format!("{PREFIX}{number}"))
}

fn names(folder: &str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).ok().into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// Removes the traces of one world of this run; its processes have ended.
pub(crate) fn remove_world(world: &str, folder: &Path) {
    let within = format!("{world}-");
    remove(|name| name.starts_with(&within));
    drop(fs::remove_dir_all(folder));
    // Fails while there are other worlds.
    drop(fs::remove_dir(run_folder()));
}

fn remove_traces(run: &str) {
    remove(|name| run_of(name).as_deref() == Some(run));
}

/// Removes pins, the daemons' run directories and namespaces by name.
fn remove(own: impl Fn(&str) -> bool) {
    for folder in [BPF, RUNS] {
        for name in names(folder).filter(|name| own(name)) {
            let path = Path::new(folder).join(name);
            unmount_beneath(&path);
            // Pinned links detach when their pin goes.
            drop(fs::remove_dir_all(path));
        }
    }
    cluster::remove_cgroups(&own);
    for name in names(NAMESPACES).filter(|name| own(name)) {
        drop(Command::new("ip").args(["netns", "delete", &name]).stderr(Stdio::null()).status());
    }
}

/// Tests that were killed have left file systems of their own there.
fn unmount_beneath(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // Names of ours have no characters that are written otherwise there.
    let beneath = mounts
        .lines()
        .filter_map(|mount| mount.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(folder));
    // One that lies in another was mounted after it.
    for at in beneath.collect::<Vec<_>>().into_iter().rev() {
        drop(Command::new("umount").args(["--lazy", at]).stderr(Stdio::null()).status());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_a_run_has_mounted_go_with_its_folder() {
        // Of a run that lives, so that no other process takes it away meanwhile.
        let own = format!("{}-mounts", run_name());
        let outer = Path::new(RUNS).join(&own).join("outer");
        for at in [&outer, &outer.join("inner")] {
            fs::create_dir_all(at).unwrap();
            let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(at).status().unwrap();
            assert!(mounted.success());
        }
        remove(|name| name == own);
        assert!(!Path::new(RUNS).join(&own).exists());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&own), "{mounts}");
    }

    #[test]
    fn only_names_of_runs_are_taken_for_runs() {
        assert_eq!(run_of("mcsp-12-member1").as_deref(), Some("mcsp-12"));
        assert_eq!(run_of("mcsp-12").as_deref(), Some("mcsp-12"));
        assert_eq!(run_of("mcsp-x-member1"), None);
        assert_eq!(run_of("mcs-proxy"), None);
    }

    #[test]
    fn a_zombie_is_not_running() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        while is_running(pid) {
            thread::yield_now();
        }
        assert!(start_time(pid).is_some());
        child.wait().unwrap();
        assert!(start_time(pid).is_none());
    }
}
