//! A node that was booted: nothing is pinned any more, but a run directory on a disk is as it was.

use crate::stage::{Stage, VIP};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::ServiceRow;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Names, silent interfaces and dead clusters of before, as of maps that are gone.
fn leave_traces(run_dir: &Path) -> Result<()> {
    let frontend = json!({"frontend": {
        "vip": VIP, "port": 80, "protocol": "TCP", "namespace": "default", "name": "of-before", "port_name": "http",
        "endpoints": [],
    }});
    let lines = format!("{}\n{frontend}\n", json!({"cluster": "member2"}));
    fs::write(run_dir.join("catalog.jsonl"), lines)?;
    let silent = json!([{
        "index": 4711, "name": "veth-of-before", "connections": 7, "backends": 2, "answer_elsewhere": true,
    }]);
    fs::write(run_dir.join("interfaces.json"), silent.to_string())?;
    let dead = json!([{"cluster": "of-before", "family": "IPv4", "since": 7}]);
    fs::write(run_dir.join("health.json"), dead.to_string())?;
    Ok(())
}

/// The pins go as at a boot, when the daemon does not run.
fn lose_pins(stage: &mut Stage) -> Result<()> {
    stage.daemon.crash()?;
    fs::remove_dir_all(stage.pin_dir()).context("pins")
}

/// Nothing of before is shown, even while the API server does not answer, which may be long.
fn starts_afresh(stage: &mut Stage) -> Result<()> {
    let run_dir = stage.run_dir()?;
    let kubeconfig = stage.world.folder("kubeconfig")?.join("nobody.json");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nobody",
        "clusters": [{"name": "nobody", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "nobody", "context": {"cluster": "nobody", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
    });
    fs::write(&kubeconfig, config.to_string())?;
    let path = kubeconfig.display().to_string();
    stage.daemon.launch_without_sync_with(&["--source", "kubernetes", "--kubeconfig", &path])?;
    // Not the line of a boot, which tells when the one before was started.
    stage.daemon.wait_for_log("INFO started")?;
    for file in ["catalog.jsonl", "interfaces.json", "health.json"] {
        let told = fs::read_to_string(run_dir.join(file)).unwrap_or_default();
        ensure!(!told.contains("of-before"), "{file} is trusted: {told}");
    }
    let said = stage.say(&["services"])?;
    ensure!(!said.contains("of-before") && !said.contains("does not answer"), "{said}");
    stage.daemon.crash()
}

#[test]
fn what_a_run_directory_tells_from_before_a_boot_is_not_trusted() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let run_dir = stage.run_dir()?;
    stage.say(&["mode", "drain"])?;
    lose_pins(&mut stage)?;
    leave_traces(&run_dir)?;
    let mut holder: Value = serde_json::from_str(&fs::read_to_string(run_dir.join("lock"))?)?;
    holder["boot"] = "0c0ffee0-0000-4000-8000-000000000000".into();
    fs::write(run_dir.join("lock"), holder.to_string())?;
    stage.daemon.launch()?;
    ensure!(
        stage.daemon.log().contains("the first start since this node was booted"),
        "{}",
        stage.daemon.log()
    );
    // What was ordered on the node is nothing that the kernel could have forgotten.
    ensure!(stage.say(&["mode"])?.contains("drain, ordered on this node"), "{}", stage.say(&["mode"])?);
    stage.say(&["mode", "auto"])?;

    lose_pins(&mut stage)?;
    leave_traces(&run_dir)?;
    fs::write(run_dir.join("lock"), holder.to_string())?;
    starts_afresh(&mut stage)
}

/// The power failed before the lock file was on the disk; or somebody took the pins away.
#[test]
fn what_a_run_directory_tells_of_maps_that_are_gone_is_not_trusted_whoever_wrote_it() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let run_dir = stage.run_dir()?;
    lose_pins(&mut stage)?;
    leave_traces(&run_dir)?;
    fs::write(run_dir.join("lock"), "")?;
    starts_afresh(&mut stage)
}

/// A restart is no boot: the names stay until they are written anew.
#[test]
fn a_restart_goes_on_with_what_the_run_directory_tells() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    // It writes the names a moment after the maps.
    let named = |rows: &[ServiceRow]| rows.iter().all(|row| row.name == "serve");
    stage.daemon.wait_for_services("names", named)?;
    stage.daemon.crash()?;
    let dead = json!([{"cluster": "member1", "family": "IPv4", "since": 7}]);
    fs::write(stage.run_dir()?.join("health.json"), dead.to_string())?;
    stage.daemon.launch()?;
    let said = stage.say(&["services"])?;
    ensure!(said.contains("default/serve"), "{said}");
    ensure!(stage.run_dir()?.join("health.json").exists(), "forgotten at a restart");
    ensure!(!stage.daemon.log().contains("since this node was booted"), "{}", stage.daemon.log());
    Ok(())
}
