//! What may befall a daemon, under traffic. Small here; with `cargo xtask test --long` as large as a bad year, with figures.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_ebpf::abi::ABI_VERSION;
use mcs_proxy_tests::{
    Daemon,
    client::{self, Connection},
    figure, is_long,
    karmada::{Port, Service},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What connections met while something else went on.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    exchanges: u64,
    bytes: u64,
    /// The longest exchange.
    stall: Duration,
}

/// Has every connection exchange a body of its own, again and again, while `act` acts.
fn meanwhile(connections: &mut [Connection], act: impl FnOnce() -> Result<()>) -> Result<Met> {
    const THREADS: usize = 4;
    let done = &AtomicBool::new(false);
    let share = connections.len().div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .chunks_mut(share)
            .map(|own| {
                scope.spawn(move || -> Result<Met> {
                    let mut met = Met::default();
                    while !done.load(Ordering::Relaxed) {
                        for connection in own.iter_mut() {
                            let body = met.exchanges.to_le_bytes().repeat(16);
                            let start = Instant::now();
                            connection.echo(&body)?;
                            met.stall = met.stall.max(start.elapsed());
                            met.exchanges += 1;
                            met.bytes += body.len() as u64;
                        }
                    }
                    Ok(met)
                })
            })
            .collect();
        let acted = act();
        done.store(true, Ordering::Relaxed);
        let mut all = Met::default();
        for thread in threads {
            let met = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.exchanges += met.exchanges;
            all.bytes += met.bytes;
            all.stall = all.stall.max(met.stall);
        }
        acted.map(|()| all)
    })
}

fn open(stage: &Stage, number: usize) -> Result<Vec<Connection>> {
    (0..number)
        .map(|_| {
            let mut connection = Connection::open(&stage.client.namespace, vip()?)?;
            connection.ask()?;
            Ok(connection)
        })
        .collect()
}

/// An exchange that fails is an error of its connection's: a reset, or bytes that are missing or others.
#[test]
fn open_connections_outlast_kills_of_the_daemon_without_a_reset_a_lost_byte_or_a_stall() -> Result<()> {
    let (flows, kills) = if is_long() { (5_000, 100) } else { (64, 3) };
    let mut stage = Stage::new(&[])?;
    let mut connections = open(&stage, flows)?;
    // How slow this machine is without any of it.
    let calm = meanwhile(&mut connections, || {
        thread::sleep(Duration::from_secs(if is_long() { 20 } else { 2 }));
        Ok(())
    })?;
    let daemon = &mut stage.daemon;
    let met = meanwhile(&mut connections, || {
        (0..kills).try_for_each(|_| {
            daemon.crash()?;
            daemon.launch()
        })
    })?;
    figure(&format!(
        "kill -9 and restart: {kills} times under {flows} connections: 0 resets, 0 bytes lost of {} in {} exchanges, \
         the longest {:.1?} (without kills {:.1?})",
        met.bytes, met.exchanges, met.stall, calm.stall
    ))?;
    // In the small run other tests share the processors.
    let bound = Duration::from_millis(if is_long() { 200 } else { 2000 });
    ensure!(met.stall < bound.max(4 * calm.stall), "{met:?}, and calm {calm:?}");
    ensure!(stage.daemon.connections()? >= flows, "{}", stage.daemon.connections()?);
    Ok(())
}

/// Up and down in turns: what is pinned becomes an older or a newer daemon's.
#[test]
fn open_connections_outlast_changes_of_layout_up_and_down() -> Result<()> {
    let (flows, changes) = if is_long() { (200, 20) } else { (16, 2) };
    let mut stage = Stage::new(&["--flow-scan-interval", "1s", "--take-over-newer"])?;
    let mut old = open(&stage, flows)?;
    let ours = stage.pin_dir().join(format!("v{ABI_VERSION}"));
    let mut all = Met::default();
    for change in 0..changes {
        let version = if change % 2 == 0 { ABI_VERSION - 1 } else { ABI_VERSION + 1 };
        let another = stage.pin_dir().join(format!("v{version}"));
        let daemon = &mut stage.daemon;
        let met = meanwhile(&mut old, || {
            daemon.crash()?;
            fs::rename(&ours, &another)?;
            daemon.launch()
        })
        .with_context(|| format!("change {change}"))?;
        let mut new = open(&stage, flows)?;
        new.iter_mut().try_for_each(|connection| connection.ask().map(drop))?;
        all.exchanges += met.exchanges;
        all.stall = all.stall.max(met.stall);
        // Its connections end, and so does it.
        old = new;
        stage.daemon.wait_for_log("the last connection of another layout has ended: taken off")?;
        ensure!(stage.attached()? == [1, 1], "change {change}: {:?}", stage.attached()?);
        old.iter_mut().try_for_each(|connection| connection.ask().map(drop))?;
    }
    figure(&format!(
        "upgrade and downgrade with another layout: {changes} changes under {flows} connections: 0 resets, \
         {} exchanges, the longest {:.1?}",
        all.exchanges, all.stall
    ))
}

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

#[test]
fn a_bpffs_that_becomes_read_only_or_a_run_directory_that_is_full_stops_no_traffic() -> Result<()> {
    let stage = Stage::new(&[])?;
    let bpffs = Mount::new("bpf", "rw", stage.world.folder("faults")?.join("bpf"))?;
    let run = Mount::new("tmpfs", "size=64k", stage.world.folder("faults")?.join("run"))?;
    let node = stage.node.clone();
    // In the place of the stage's own daemon.
    stage.say(&["cleanup", "--force"])?;
    let (pin_dir, run_dir) = (bpffs.0.join("pins").display().to_string(), run.0.display().to_string());
    let source = format!("directory={}", stage.manifests.folder().display());
    let arguments = ["--source", &source, "--pin-dir", &pin_dir, "--run-dir", &run_dir];
    let mut daemon = Daemon::start_elsewhere(&node, Path::new(&pin_dir), &arguments)?;
    let mut connection = Connection::open(&stage.client.namespace, vip()?)?;
    connection.ask()?;

    // Nothing can be pinned: a new pod is left to what is beneath, and served once it can be.
    bpffs.remount("ro")?;
    let next = stage.world.add_pod(&stage.node, "next", &["10.12.0.10"])?;
    daemon.wait_for_warning("Read-only file system")?;
    connection.ask()?;
    client::http(&stage.client.namespace, vip()?, 2)?;
    bpffs.remount("rw")?;
    let start = Instant::now();
    while client::http(&next.namespace, vip()?, 1).is_err() {
        ensure!(start.elapsed() < Duration::from_secs(30), "{}", daemon.log());
    }

    // Names cannot be written.
    let filler = run.0.join("filler");
    let _full = fs::write(&filler, vec![0_u8; 1 << 20]);
    // So many that they do not fit into what is left of the last page.
    let ports: Vec<Port> = (80..120).map(|port| Port::new(&format!("p{port}"), "TCP", port)).collect();
    let service = Service::new("second", "member2", &["10.13.0.2"], &ports)?;
    stage.manifests.service(&service.annotated("enabled", "true"))?;
    daemon.wait_for_warning("lacks names")?;
    connection.ask()?;
    client::http(&stage.client.namespace, vip()?, 2)?;
    fs::remove_file(&filler)?;
    daemon.wait_for_log("written again")?;
    Ok(())
}
