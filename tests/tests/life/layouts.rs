//! Daemons of two layouts after one another. The other one is ours, whose pins lie where another layout's would: to those that
//! come after it it is another, and its programs run as they did.

use crate::stage::{Stage, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_ebpf::abi::ABI_VERSION;
use mcs_proxy_tests::client::{self, Connection};
use std::fs;

/// The daemon is gone, and what it pinned is another version's.
fn become_another(stage: &mut Stage, version: u32) -> Result<()> {
    stage.daemon.crash()?;
    let ours = stage.pin_dir().join(format!("v{ABI_VERSION}"));
    fs::rename(ours, stage.pin_dir().join(format!("v{version}")))?;
    Ok(())
}

/// Flows that have begun by our own maps.
fn begun(stage: &Stage) -> Result<u64> {
    Ok(stage.daemon.services()?.iter().map(|row| row.flows).sum())
}

/// The next daemon's programs are first; the other layout's connections go on behind them and end there.
fn take_over(stage: &mut Stage, mut old: Connection) -> Result<()> {
    ensure!(stage.attached()? == [2, 2], "{:?}", stage.attached()?);
    let backend = old.ask()?;
    let mut new = Connection::open(&stage.client.namespace, vip()?)?;
    new.ask()?;
    ensure!(begun(stage)? == 1, "the new one is ours");
    ensure!(stage.daemon.connections()? == 1, "and the old one is not");
    client::http(&stage.node.namespace, vip()?, 1)?;
    ensure!(begun(stage)? == 2, "sockets as well");
    ensure!(old.ask()? == backend);
    drop(old);
    stage.daemon.wait_for_log("the last connection of another layout has ended: taken off")?;
    ensure!(stage.attached()? == [1, 1], "{:?}", stage.attached()?);
    let left: Vec<_> =
        fs::read_dir(stage.pin_dir())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    ensure!(left == [format!("v{ABI_VERSION}").as_str()], "{left:?}");
    new.ask()?;
    client::http(&stage.client.namespace, vip()?, 1)?;
    Ok(())
}

#[test]
fn an_upgrade_to_another_layout_takes_the_new_connections_and_lets_the_old_ones_end() -> Result<()> {
    let mut stage = Stage::new(&["--flow-scan-interval", "1s"])?;
    let mut old = Connection::open(&stage.client.namespace, vip()?)?;
    old.ask()?;
    become_another(&mut stage, ABI_VERSION - 1)?;
    old.ask()?;
    stage.daemon.launch()?;
    take_over(&mut stage, old)
}

#[test]
fn a_daemon_older_than_what_is_pinned_is_refused_and_named_the_version_unless_told_to_take_over() -> Result<()>
{
    let mut stage = Stage::new(&["--flow-scan-interval", "1s"])?;
    let mut old = Connection::open(&stage.client.namespace, vip()?)?;
    old.ask()?;
    become_another(&mut stage, ABI_VERSION + 1)?;
    let lock = stage.run_dir()?.join("lock");
    let mut holder: serde_json::Value = serde_json::from_str(&fs::read_to_string(&lock)?)?;
    holder["layout"] = (ABI_VERSION + 1).into();
    holder["version"] = "9.8.7".into();
    fs::write(&lock, holder.to_string())?;
    let source = format!("directory={}", stage.manifests.folder().display());
    for _ in 0..2 {
        let said = stage.refused(&["run", "--cluster-name", "member2", "--source", &source])?;
        for words in ["run version 9.8.7 here", "--take-over-newer", &format!("v{}", ABI_VERSION + 1)] {
            ensure!(said.contains(words), "no `{words}`: {said}");
        }
        ensure!(!stage.pin_dir().join(format!("v{ABI_VERSION}")).exists(), "it has left something");
    }
    ensure!(stage.attached()? == [1, 1], "{:?}", stage.attached()?);
    old.ask()?;
    client::http(&stage.client.namespace, vip()?, 2)?;
    stage.daemon.launch_with(&["--take-over-newer"])?;
    take_over(&mut stage, old)
}

#[test]
fn bypass_takes_the_programs_of_another_layout_off_too() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let mut old = Connection::open(&stage.client.namespace, vip()?)?;
    old.ask()?;
    become_another(&mut stage, ABI_VERSION - 1)?;
    stage.daemon.launch()?;
    ensure!(stage.attached()? == [2, 2], "{:?}", stage.attached()?);
    stage.say(&["mode", "bypass"]).context("mode")?;
    ensure!(stage.attached()? == [0, 0], "{:?}", stage.attached()?);
    Ok(())
}

/// There are no pins to tell the old ones from ours by, nor two places to be in.
#[test]
fn clsact_filters_are_renewed_under_open_connections_and_replaced_at_once_by_another_layout_or_size()
-> Result<()> {
    let mut stage = Stage::new(&["--hook", "clsact"])?;
    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    let backend = open.ask()?;
    stage.daemon.crash()?;
    ensure!(open.ask()? == backend);
    stage.daemon.launch()?;
    ensure!(open.ask()? == backend);
    ensure!(stage.filters()? == [1, 1], "{:?}", stage.filters()?);

    stage.daemon.crash()?;
    stage.daemon.launch_with(&["--max-flows", "600000"])?;
    stage.daemon.wait_for_log("maps are larger than before")?;
    ensure!(stage.filters()? == [1, 1], "{:?}", stage.filters()?);
    client::http(&stage.client.namespace, vip()?, 2)?;

    let mut open = Connection::open(&stage.client.namespace, vip()?)?;
    open.ask()?;
    become_another(&mut stage, ABI_VERSION - 1)?;
    open.ask()?;
    stage.daemon.launch()?;
    ensure!(stage.filters()? == [1, 1], "{:?}", stage.filters()?);
    client::http(&stage.client.namespace, vip()?, 2)?;
    ensure!(open.ask().is_err(), "its layout has no program any more");
    Ok(())
}
