//! What commands say of a daemon that is not there, that they may not ask, or that was told to let nothing begin.

use crate::stage::{Stage, v4};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::{ServiceRow, client::Connection, programs};
use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Exit code, standard output, standard error.
type Said = (Option<i32>, String, String);

fn run(stage: &Stage, mut command: Command, arguments: &[&str]) -> Result<Said> {
    let output = command.args(arguments).arg("--pin-dir").arg(stage.daemon.pin_dir()).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

fn say(stage: &Stage, arguments: &[&str]) -> Result<Said> {
    run(stage, Command::new(programs::mcs_proxy()?), arguments)
}

/// The same for somebody who has no rights. The program may be where such a person cannot look.
fn say_as_nobody(stage: &Stage, arguments: &[&str]) -> Result<Said> {
    const NOBODY: u32 = 65_534;
    let program = File::open(programs::mcs_proxy()?)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0("mcs-proxy").uid(NOBODY).gid(NOBODY).current_dir("/");
    run(stage, command, arguments)
}

fn run_dir(stage: &Stage) -> Result<PathBuf> {
    Ok(Path::new("/run").join(stage.daemon.pin_dir().file_name().context("no name")?))
}

#[test]
fn whoever_may_not_ask_is_told_so_and_not_that_no_daemon_runs() -> Result<()> {
    let mut stage = Stage::new()?;
    for arguments in [
        &["status"][..],
        &["mode"],
        &["mode", "drain"],
        &["explain", "default/serve"],
        &["services"],
        &["backends"],
        &["connections"],
        &["stats"],
        &["monitor"],
    ] {
        let (code, out, error) = say_as_nobody(&stage, arguments)?;
        ensure!(code == Some(4) && out.is_empty(), "{arguments:?}: {code:?} {out} {error}");
        ensure!(error.contains("permission denied: run as root, as with sudo"), "{arguments:?}: {error}");
        ensure!(!error.contains("no daemon"), "{arguments:?}: {error}");
    }
    assert_eq!(stage.daemon.show(&["mode"])?, "active, as the settings say\n");
    // Nor may such a person leave an order to the next daemon.
    stage.daemon.stop();
    fs::remove_file(run_dir(&stage)?.join("mcs-proxy.sock"))?;
    let (code, out, error) = say_as_nobody(&stage, &["mode", "drain"])?;
    ensure!(
        code == Some(4) && out.is_empty() && error.contains("permission denied"),
        "{code:?} {out} {error}"
    );
    let (_, out, _) = say(&stage, &["mode"])?;
    ensure!(out.starts_with("what the settings say, once a daemon runs"), "{out}");
    Ok(())
}

#[test]
fn an_order_that_no_daemon_hears_ends_with_a_code_of_its_own_and_holds_from_the_next_start() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.daemon.crash()?;
    for arguments in [&["mode", "drain"][..], &["mode"]] {
        let (code, out, error) = say(&stage, arguments)?;
        ensure!(code == Some(6) && out.starts_with("drain, once a daemon runs"), "{code:?} {out} {error}");
        for words in ["warning: no daemon answers at", "holds once a daemon is started", "takes new flows"] {
            ensure!(error.contains(words), "no `{words}`: {error}");
        }
    }
    ensure!(!stage.daemon.services()?.is_empty(), "what is pinned was changed");
    stage.daemon.launch()?;
    let (code, out, error) = say(&stage, &["mode"])?;
    ensure!(code == Some(0) && error.is_empty() && out.starts_with("drain, ordered on this node"), "{out}");
    stage.daemon.wait_for_services("no frontend", <[ServiceRow]>::is_empty)
}

#[test]
fn on_a_node_that_drains_services_names_what_is_opted_in_and_what_goes_on() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut open = Connection::open(&stage.client.namespace, v4()?)?;
    open.ask()?;
    stage.daemon.show(&["mode", "drain"])?;
    let (code, out, error) = say(&stage, &["services"])?;
    ensure!(code == Some(0) && error.is_empty(), "{code:?} {error}");
    ensure!(!out.contains("No Service is opted in"), "{out}");
    ensure!(out.contains("mode drain, ordered on this node; the settings say active"), "{out}");
    ensure!(out.contains("`mcs-proxy mode auto`") && out.contains("`mcs-proxy connections`"), "{out}");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        ["TCP", "10.13.181.116:80", "1", "0", "default/serve:http"],
        ["UDP", "10.13.181.116:80", "0", "0", "default/serve:echo"],
        ["TCP", "[fd10:13::116]:80", "0", "0", "default/serve:http"],
    ] {
        ensure!(rows.iter().any(|found| *found == row), "no {row:?}: {out}");
    }
    let (_, of_one, _) = say(&stage, &["services", "default/serve"])?;
    assert_eq!(of_one, out);
    let (_, of_none, _) = say(&stage, &["services", "default/other"])?;
    ensure!(of_none.starts_with("No frontends of Service default/other"), "{of_none}");
    let (code, out, error) = say(&stage, &["services", "-o", "json"])?;
    ensure!((code, out.as_str()) == (Some(0), "[]\n") && error.contains("mode drain"), "{out} {error}");
    ensure!(say(&stage, &["stats"])?.1.contains("`mcs-proxy services` says why"));

    stage.daemon.crash()?;
    let (code, out, _) = say(&stage, &["services"])?;
    ensure!(code == Some(0) && out.contains("mode drain was ordered on it"), "{out}");
    ensure!(out.contains("1 flows are in the maps") && !out.contains("No Service is opted in"), "{out}");
    open.ask()?;

    stage.daemon.launch()?;
    stage.daemon.show(&["mode", "bypass"])?;
    let (_, out, _) = say(&stage, &["services"])?;
    ensure!(out.contains("mode bypass") && out.contains("the programs are off"), "{out}");
    ensure!(out.contains("default/serve:http") && !out.contains("go on"), "{out}");
    Ok(())
}
