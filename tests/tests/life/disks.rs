//! File systems that are full or read-only, while a daemon runs and when one starts.

use crate::stage::{Stage, vip};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    Daemon,
    client::{self, Connection},
    karmada::{Port, Service},
    programs,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

/// A file system of a test's own, gone with it.
struct Mount(PathBuf);

impl Mount {
    fn new(kind: &str, options: &str, at: PathBuf) -> Result<Self> {
        fs::create_dir_all(&at)?;
        mount(&["-t", kind, "-o", options, kind], &at)?;
        Ok(Self(at))
    }

    fn remount(&self, options: &str) -> Result<()> {
        mount(&["-o", &format!("remount,{options}")], &self.0)
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<()> {
    let output = Command::new("mount").args(arguments).arg(at).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: what still has files there lets go of them in a moment.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// A daemon whose pins and files are on file systems of their own. Fields are dropped in order.
struct Disks {
    daemon: Daemon,
    bpffs: Mount,
    run: Mount,
    stage: Stage,
}

impl Disks {
    fn new() -> Result<Self> {
        let stage = Stage::new(&[])?;
        let bpffs = Mount::new("bpf", "rw", stage.world.folder("faults")?.join("bpf"))?;
        let run = Mount::new("tmpfs", "size=64k", stage.world.folder("faults")?.join("run"))?;
        // In the place of the stage's own daemon.
        stage.say(&["cleanup", "--force"])?;
        let source = format!("directory={}", stage.manifests.folder().display());
        let places = Self::places(&bpffs, &run);
        let arguments = [&["--source", &source], &places.each_ref().map(String::as_str)[..]].concat();
        let daemon = Daemon::start_elsewhere(&stage.node, &bpffs.0.join("pins"), &arguments)?;
        Ok(Self { daemon, bpffs, run, stage })
    }

    fn places(bpffs: &Mount, run: &Mount) -> [String; 4] {
        let (pin_dir, run_dir) = (bpffs.0.join("pins").display().to_string(), run.0.display().to_string());
        ["--pin-dir".into(), pin_dir, "--run-dir".into(), run_dir]
    }

    /// What a command says that is run beside the daemon.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.stage.node.namespace.command(programs::mcs_proxy()?)?;
        Ok(command.args(arguments).args(Self::places(&self.bpffs, &self.run)).output()?)
    }

    /// Another daemon does not start, and says this.
    fn is_refused(&self, words: &[&str]) -> Result<()> {
        let source = format!("directory={}", self.stage.manifests.folder().display());
        let output = self.run(&["run", "--cluster-name", "member2", "--source", &source])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{said}");
        for word in words {
            ensure!(said.contains(word), "no `{word}`: {said}");
        }
        Ok(())
    }

    fn call(&self) -> Result<()> {
        client::http(&self.stage.client.namespace, vip()?, 2).map(drop)
    }

    /// Nothing more fits into the run directory.
    fn fill(&self) -> PathBuf {
        let filler = self.run.0.join("filler");
        let _full = fs::write(&filler, vec![0_u8; 1 << 20]);
        filler
    }
}

#[test]
fn a_bpffs_that_becomes_read_only_or_a_run_directory_that_is_full_stops_no_traffic() -> Result<()> {
    let mut disks = Disks::new()?;
    let mut connection = Connection::open(&disks.stage.client.namespace, vip()?)?;
    connection.ask()?;

    // Nothing can be pinned: a new pod is left to what is beneath, and served once it can be.
    disks.bpffs.remount("ro")?;
    let next = disks.stage.world.add_pod(&disks.stage.node, "next", &["10.12.0.10"])?;
    disks.daemon.wait_for_warning("Read-only file system")?;
    connection.ask()?;
    disks.call()?;
    disks.bpffs.remount("rw")?;
    let start = Instant::now();
    while client::http(&next.namespace, vip()?, 1).is_err() {
        ensure!(start.elapsed() < Duration::from_secs(30), "{}", disks.daemon.log());
    }

    // Names cannot be written.
    let filler = disks.fill();
    // So many that they do not fit into what is left of the last page.
    let ports: Vec<Port> = (80..120).map(|port| Port::new(&format!("p{port}"), "TCP", port)).collect();
    let service = Service::new("second", "member2", &["10.13.0.2"], &ports)?;
    disks.stage.manifests.service(&service.annotated("enabled", "true"))?;
    disks.daemon.wait_for_warning("lacks names")?;
    connection.ask()?;
    disks.call()?;
    fs::remove_file(&filler)?;
    disks.daemon.wait_for_log("written again")?;
    Ok(())
}

#[test]
fn a_daemon_does_not_start_on_a_bpffs_that_is_read_only_and_names_the_way_out() -> Result<()> {
    let mut disks = Disks::new()?;
    let mut connection = Connection::open(&disks.stage.client.namespace, vip()?)?;
    connection.ask()?;
    disks.daemon.crash()?;
    disks.bpffs.remount("ro")?;
    disks.is_refused(&["mounted read-only", "mount -o remount,rw", "what runs goes on"])?;
    let checked = disks.run(&["check"])?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(checked.status.code() == Some(5), "{said}");
    let line = said.lines().find(|line| line.starts_with("FAILED") && line.contains(" bpffs "));
    ensure!(line.is_some_and(|line| line.contains("mounted read-only")), "{said}");
    ensure!(said.contains("mount -o remount,rw"), "{said}");
    ensure!(!said.contains("cannot be opened") && !said.contains("--max-"), "it blames the pins: {said}");
    connection.ask()?;
    disks.call()?;
    disks.bpffs.remount("rw")?;
    disks.daemon.launch()?;
    connection.ask()?;
    disks.call()
}

#[test]
fn a_daemon_starts_on_a_run_directory_that_is_full_and_tells_what_is_missing() -> Result<()> {
    let mut disks = Disks::new()?;
    let mut connection = Connection::open(&disks.stage.client.namespace, vip()?)?;
    connection.ask()?;
    disks.daemon.crash()?;
    // What it would write is not there, so that it needs room.
    for file in ["catalog.jsonl", "lock"] {
        // Names come after the maps, and may not have come yet.
        drop(fs::remove_file(disks.run.0.join(file)));
    }
    let filler = disks.fill();
    disks.daemon.launch()?;
    disks.daemon.wait_for_warning("lock: No space left on device")?;
    disks.daemon.wait_for_warning("lacks names")?;
    connection.ask()?;
    disks.call()?;
    disks.is_refused(&["another mcs-proxy runs"])?;
    fs::remove_file(&filler)?;
    disks.daemon.wait_for_log("written again")?;
    Ok(())
}

#[test]
fn a_daemon_does_not_start_on_a_run_directory_that_is_read_only_and_traffic_goes_on() -> Result<()> {
    let mut disks = Disks::new()?;
    let mut connection = Connection::open(&disks.stage.client.namespace, vip()?)?;
    connection.ask()?;
    disks.daemon.crash()?;
    disks.run.remount("ro")?;
    disks.is_refused(&["Read-only file system", "--run-dir"])?;
    connection.ask()?;
    disks.call()?;
    disks.run.remount("rw")?;
    disks.daemon.launch()?;
    connection.ask()?;
    disks.call()
}
