//! A node whose wall clock is set, by days, forward and back. The daemon alone is told so, by libfaketime.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    client::{self, Connection},
    karmada::{Port, Service},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Debian has it in a folder of the processor's.
fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .context("no libfaketime in /usr/lib: Debian's package faketime")
}

/// The date, as logs begin with it, so many days from now.
fn date(days: i64) -> Result<String> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let then = format!("@{}", now + days * 86_400);
    let output = Command::new("date").args(["--utc", "+%F", "--date", &then]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Nothing is old that has just happened, and nothing new is taken for old.
fn is_young(status: &Value) -> bool {
    let is_recent = |value: &Value| value.as_f64().is_some_and(|seconds| (0.0..300.0).contains(&seconds));
    let sources = status["sources"].as_array();
    is_recent(&status["uptime_seconds"])
        && is_recent(&status["last_transaction"]["age_seconds"])
        && sources.is_some_and(|sources| {
            !sources.is_empty() && sources.iter().all(|source| is_recent(&source["last_event_seconds"]))
        })
}

/// Sets the daemon's clock, and waits until it has noticed: it logs the change of a Service by that date.
fn set(stage: &mut Stage, file: &Path, days: i64, port: u16) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{:+}d\n", days))?;
    fs::rename(&new, file)?;
    let at_first = date(days)?;
    let start = Instant::now();
    for next in port.. {
        let ports = [Port::new("http", "TCP", 80), Port::new("more", "TCP", next)];
        let service = Service::new("serve", "member2", &[crate::stage::VIP], &ports)?;
        stage.manifests.service(&service.annotated("enabled", "true"))?;
        let wanted = u64::from(next);
        stage.daemon.wait_for_services("the new port", |rows| rows.iter().any(|row| row.port == wanted))?;
        let last = stage.daemon.log().lines().rfind(|line| line.contains("programmed")).map(str::to_owned);
        let dates = [&at_first, &date(days)?];
        if last.is_some_and(|line| dates.iter().any(|date| line.starts_with(date.as_str()))) {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "it has not noticed: {}", stage.daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn a_clock_that_is_set_by_days_changes_nothing_for_flows_services_and_ages() -> Result<()> {
    let arguments = ["--orphan-timeout", "1h", "--flow-scan-interval", "1s", "--deleted-slice-grace", "1s"];
    let mut stage = Stage::new(&arguments)?;
    let file = stage.world.folder("clock")?.join("faketimerc");
    fs::write(&file, "+0d\n")?;
    stage.daemon.crash()?;
    let preload = format!("LD_PRELOAD={}", library()?.display());
    let told = format!("FAKETIME_TIMESTAMP_FILE={}", file.display());
    stage.daemon.launch_under(&[
        "env",
        &preload,
        &told,
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ])?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    open.ask()?;
    let slice = stage.manifests.folder().join("endpointslice-serve-1.yaml");
    let text = fs::read_to_string(&slice).with_context(|| slice.display().to_string())?;
    for (round, days) in [3, -3, 0].into_iter().enumerate() {
        set(&mut stage, &file, days, 1000 * (u16::try_from(round)? + 1))?;
        open.ask()?;
        let begun = || anyhow::Ok(stage.daemon.services()?.iter().map(|row| row.flows).sum::<u64>());
        let before = begun()?;
        client::http(&stage.client.namespace, vip()?, 3)?;
        client::http(&stage.node.namespace, vip()?, 1)?;
        ensure!(begun()? == before + 4, "{days} days: new flows are not ours");
        let status: Value = serde_json::from_str(&stage.say(&["status", "-o", "json"])?)?;
        ensure!(is_young(&status), "{days} days: {status:#}");
        // A wait that is under way when the clock is set: for what is deleted.
        fs::remove_file(&slice)?;
        stage.daemon.wait_for_services("no endpoint", |rows| {
            rows.iter().all(|row| row.endpoints.iter().all(|endpoint| !endpoint.in_maps))
        })?;
        open.ask()?;
        fs::write(&slice, &text)?;
        stage.daemon.wait_for_services("the endpoint", |rows| {
            rows.iter().any(|row| row.port == 80 && row.endpoints.iter().any(|endpoint| endpoint.in_maps))
        })?;
        open.ask()?;
    }
    Ok(())
}
