//! What may befall a daemon, under traffic. Small here; with `cargo xtask test --long` as large as a bad year, with figures.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_ebpf::abi::ABI_VERSION;
use mcs_proxy_tests::{client::Connection, figure, is_long};
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What connections met while something else went on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    exchanges: u64,
    bytes: u64,
    /// The longest exchange.
    pub(crate) stall: Duration,
}

/// Has every connection exchange a body of its own, again and again, while `act` acts. Each does so about once a second, or a
/// thousand times where there are few: what waits for a processor would otherwise be waiting for our own traffic.
pub(crate) fn meanwhile(connections: &mut [Connection], act: impl FnOnce() -> Result<()>) -> Result<Met> {
    const THREADS: usize = 4;
    const LONGEST_PAUSE: Duration = Duration::from_millis(1);
    let done = &AtomicBool::new(false);
    let share = connections.len().div_ceil(THREADS).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .chunks_mut(share)
            .map(|own| {
                scope.spawn(move || -> Result<Met> {
                    let mut met = Met::default();
                    let pause = LONGEST_PAUSE.min(Duration::from_secs(1) / u32::try_from(own.len())?);
                    let mut due = Instant::now();
                    while !done.load(Ordering::Relaxed) {
                        for connection in own.iter_mut() {
                            let body = met.exchanges.to_le_bytes().repeat(16);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            let start = Instant::now();
                            connection.echo(&body)?;
                            met.stall = met.stall.max(start.elapsed());
                            due = start + pause;
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
    Connection::open_many(&stage.client.namespace, vip()?, number)
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
    let bound =
        if is_long() { Duration::from_millis(200) } else { Duration::from_secs(2).max(4 * calm.stall) };
    ensure!(met.stall < bound, "{met:?}, and calm {calm:?}");
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
