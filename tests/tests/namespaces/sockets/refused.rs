//! Nodes that the socket path cannot serve, or not all of: said at once, and packets are served all the same.

use crate::stage::{Stage, v4, v6};
use anyhow::{Result, ensure};
use mcs_proxy_tests::{Cgroup, Namespace, client};
use std::{fs, net::TcpStream, path::Path, time::Duration};

/// Nothing is beneath us here, so that a call that we leave alone reaches nobody.
fn is_served(namespace: &Namespace) -> Result<bool> {
    let vip = v4()?;
    namespace.run(move || -> Result<_> {
        Ok(TcpStream::connect_timeout(&vip, Duration::from_millis(200)).is_ok())
    })
}

/// No program of the socket path is left; pods are served by packets.
fn expect_packets_alone(stage: &Stage) -> Result<()> {
    for vip in [v4()?, v6()?] {
        assert_eq!(client::http(&stage.client.namespace, vip, 2)?.len(), 2);
    }
    assert_eq!(stage.daemon.connections()?, 4);
    ensure!(!is_served(&stage.node.namespace)?, "a socket was translated");
    let pins = pins(stage.daemon.pin_dir())?;
    ensure!(!pins.iter().any(|name| name.contains("connect") || name.contains("sendmsg")), "{pins:?}");
    Ok(())
}

/// The names of all that is pinned, folders included.
fn pins(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        names.push(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            names.extend(pins(&entry.path())?);
        }
    }
    Ok(names)
}

#[test]
fn a_cgroup_that_is_none_is_named_at_start_and_packets_are_served() -> Result<()> {
    let mut stage = Stage::new()?;
    // Served at first: what is left from then goes as well.
    ensure!(is_served(&stage.node.namespace)?);
    ensure!(pins(stage.daemon.pin_dir())?.iter().any(|name| name.contains("connect4")));
    stage.daemon.stop();
    let folder = stage.world.folder("no-cgroup")?;
    let file = folder.join("file");
    fs::write(&file, "")?;
    let folder = folder.display();
    for (path, words) in [
        (format!("{folder}"), format!("--cgroup {folder} is not a directory of a cgroup2 file system")),
        (format!("{folder}/file"), format!("--cgroup {folder}/file is not a directory of a cgroup2")),
        (format!("{folder}/none"), format!("--cgroup {folder}/none: No such file or directory")),
    ] {
        stage.daemon.set_flag("--cgroup", &path);
        stage.daemon.launch()?;
        stage.daemon.wait_for_warning(&words)?;
        stage.daemon.wait_for_warning("sockets are not translated (--socket-path off), only packets")?;
        stage.daemon.stop();
    }
    stage.daemon.launch()?;
    expect_packets_alone(&stage)
}

#[test]
fn without_a_mounted_cgroup2_packets_are_served_and_the_way_out_is_told() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.daemon.stop();
    stage.daemon.launch_under(&[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "umount --all --types cgroup2 && exec \"$@\"",
        "sh",
    ])?;
    stage
        .daemon
        .wait_for_warning("no cgroup2 is mounted here: mount it (`mount -t cgroup2 none /sys/fs/cgroup`")?;
    expect_packets_alone(&stage)
}

#[test]
fn a_hook_that_another_program_has_for_itself_leaves_packets_served() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let path = cgroup.path().display().to_string();
    cgroup.occupy_connect4()?;
    let mut stage = Stage::with(
        |service| service.annotated("enabled", "true"),
        &["--socket-path", "all", "--cgroup", &path],
    )?;
    // The hooks that were free are given back.
    stage.daemon.wait_for_warning(&format!(
        "{path}: it, or a cgroup above it, has a program at the hook `connect4`"
    ))?;
    expect_packets_alone(&stage)
}

/// What a pod has that was given none of the node's: a cgroup namespace whose root is its own cgroup.
#[test]
fn a_cgroup_with_nobody_but_the_daemon_in_it_is_told_of() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.daemon.stop();
    let cgroup = Cgroup::new()?;
    let path = cgroup.path().display();
    let root = cgroup.root().display();
    let script = format!(
        "echo $$ > {path}/cgroup.procs && exec unshare --cgroup --mount sh -c '\
         umount {root} && mount -t cgroup2 none {root} && exec \"$@\"' sh \"$@\""
    );
    stage.daemon.launch_under(&["sh", "-c", &script, "sh"])?;
    stage.daemon.wait_for_warning(&format!("the cgroup {root} has mcs-proxy in it and nobody else"))?;
    for vip in [v4()?, v6()?] {
        assert_eq!(client::http(&stage.client.namespace, vip, 2)?.len(), 2);
    }
    ensure!(!is_served(&stage.node.namespace)?, "this test's process is elsewhere");
    stage.daemon.stop();
    Ok(())
}

#[test]
fn a_nested_cgroup_that_is_not_ours_is_told_of_and_serves_those_in_it() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let path = cgroup.path().display().to_string();
    let mut stage = Stage::with(|service| service.annotated("enabled", "true"), &["--cgroup", &path])?;
    stage.daemon.wait_for_warning(&format!("--cgroup {path} is a nested cgroup that mcs-proxy is not in"))?;
    for vip in [v4()?, v6()?] {
        assert_eq!(client::http(&stage.client.namespace, vip, 2)?.len(), 2);
    }
    assert_eq!(stage.daemon.connections()?, 4);
    ensure!(!is_served(&stage.node.namespace)?, "this test's process is outside");
    let url = format!("http://{}/", v4()?);
    let script = format!("echo $$ > {path}/cgroup.procs && exec curl --silent --fail --max-time 5 {url}");
    let output = stage.node.namespace.command("sh")?.args(["-c", &script]).output()?;
    client::who(&String::from_utf8_lossy(&output.stdout))?;
    // With `all` that is what the flag is for.
    stage.daemon.stop();
    stage.daemon.launch_with(&["--socket-path", "all"])?;
    ensure!(!stage.daemon.log().contains("cgroup"), "{}", stage.daemon.log());
    Ok(())
}
