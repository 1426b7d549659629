//! `mcs-proxy cleanup`: what daemons have left goes, whoever they were, and nothing else.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    bpf::{End, Observer, Way},
    client,
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

/// How many of each kind it names, as (kind, state).
fn kinds(json: &str) -> Result<BTreeMap<(String, String), usize>> {
    let rows: Vec<Value> = serde_json::from_str(json).context("cleanup -o json")?;
    let mut kinds = BTreeMap::new();
    for row in rows {
        let word = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        *kinds.entry((word("kind"), word("state"))).or_default() += 1;
    }
    Ok(kinds)
}

fn count(kinds: &BTreeMap<(String, String), usize>, kind: &str, state: &str) -> usize {
    kinds.get(&(kind.into(), state.into())).copied().unwrap_or_default()
}

/// Links of two layouts, the socket path's, files; beside them what is somebody else's.
#[test]
fn cleanup_takes_every_layout_that_a_killed_daemon_left_and_leaves_what_is_somebody_elses() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let said = stage.refused(&["cleanup"])?;
    let process = format!("process {}", stage.daemon.id().context("it does not run")?);
    for words in ["another mcs-proxy runs", &process, "version 0.", "started 2", "--force"] {
        ensure!(said.contains(words), "no `{words}`: {said}");
    }
    // It keeps that layout from being taken off by the next daemon.
    let mut connection = client::Connection::open(&stage.client.namespace, vip()?)?;
    connection.ask()?;
    stage.daemon.crash()?;
    // As a daemon of another layout would have left it.
    let own = fs::read_dir(stage.pin_dir())?.next().context("no layout")??.path();
    fs::rename(&own, stage.pin_dir().join("v1"))?;
    stage.daemon.launch()?;
    stage.daemon.crash()?;
    let foreign = stage.pin_dir().join("somebody");
    fs::create_dir(&foreign)?;
    symlink("/sys/fs/bpf", own.join("a-symbolic-link"))?;
    let notes = stage.run_dir()?.join("notes.txt");
    fs::write(&notes, "somebody's")?;
    ensure!(stage.attached()? == [2, 2], "{:?}", stage.attached()?);

    let listed = kinds(&stage.say(&["cleanup", "--dry-run", "-o", "json"])?)?;
    // Of each layout: two interfaces' links, eight hooks of sockets.
    ensure!(count(&listed, "link", "found") == 2 * (4 + 8), "{listed:?}");
    ensure!(count(&listed, "foreign", "found") == 1, "{listed:?}");
    ensure!(count(&listed, "file", "found") >= 3, "{listed:?}");
    ensure!(listed.keys().all(|(_, state)| state == "found"), "{listed:?}");
    ensure!(stage.attached()? == [2, 2], "a list changes nothing");
    let shown = stage.say(&["cleanup", "--dry-run"])?;
    ensure!(shown.contains(&format!("link       found  {}", own.join("links").display())), "{shown}");

    let removed = kinds(&stage.say(&["cleanup", "-o", "json"])?)?;
    ensure!(count(&removed, "link", "removed") == count(&listed, "link", "found"), "{removed:?}");
    ensure!(count(&removed, "pin", "removed") == count(&listed, "pin", "found"), "{removed:?}");
    // The two that hold something of somebody's.
    ensure!(count(&removed, "directory", "kept") == 2, "{removed:?}");
    ensure!(stage.attached()? == [0, 0], "{:?}", stage.attached()?);
    ensure!(foreign.is_dir() && notes.is_file(), "what is somebody else's is gone");
    ensure!(fs::read_dir(stage.pin_dir())?.count() == 1 && fs::read_dir(stage.run_dir()?)?.count() == 1);

    fs::remove_dir(&foreign)?;
    fs::remove_file(&notes)?;
    stage.say(&["cleanup"])?;
    ensure!(!stage.pin_dir().exists() && !stage.run_dir()?.exists());
    let nothing = stage.say(&["cleanup"])?;
    ensure!(nothing == "Nothing of mcs-proxy is left on this node.\n", "{nothing}");
    // And the node is as good as new.
    stage.daemon.launch()?;
    client::http(&stage.client.namespace, vip()?, 1)?;
    Ok(())
}

#[test]
fn cleanup_takes_off_our_clsact_filters_and_no_others() -> Result<()> {
    let mut stage = Stage::new(&["--hook", "clsact"])?;
    let interface = stage.client.host_interface.clone();
    let other = (End::Source, "10.12.0.9".parse()?);
    let _other = Observer::classify(&stage.node.namespace, &interface, (Way::Ingress, 7), other)?;
    stage.daemon.crash()?;
    ensure!(stage.filters()? == [2, 1]);
    // No pin tells of them.
    fs::remove_dir_all(stage.pin_dir())?;
    let shown = stage.say(&["cleanup", "--dry-run"])?;
    for words in
        [format!("filter     found  {interface} from-pod"), format!("filter     found  {interface} to-pod")]
    {
        ensure!(shown.contains(&words), "no `{words}`: {shown}");
    }
    ensure!(stage.filters()? == [2, 1]);
    stage.say(&["cleanup"])?;
    ensure!(stage.filters()? == [1, 0], "{:?}", stage.filters()?);
    Ok(())
}

#[test]
fn a_forced_cleanup_ends_the_daemon_whose_pins_it_takes() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let mut connection = client::Connection::open(&stage.client.namespace, vip()?)?;
    connection.ask()?;
    stage.say(&["cleanup", "--force"])?;
    ensure!(stage.attached()? == [0, 0]);
    let _pod = stage.world.add_pod(&stage.node, "next", &["10.12.0.10"])?;
    stage.daemon.wait_for_log("it was removed, and what was pinned there")?;
    Ok(())
}
