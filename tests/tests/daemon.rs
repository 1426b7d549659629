//! The daemon and its commands in the hands of an operator: what they refuse, and what they outlast.

use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, Node, World,
    karmada::{Manifests, Port, Service},
    programs,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

/// A node of member2 whose Service `serve` the daemon has programmed.
struct Stage {
    daemon: Daemon,
    manifests: Manifests,
    node: Node,
    world: World,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut world = World::new()?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
        let manifests = Manifests::new(world.folder("manifests")?)?;
        manifests.service(&service("serve", "10.13.181.116")?)?;
        let mut daemon = Daemon::start(&node, manifests.folder())?;
        // Names are written after the maps.
        daemon.wait_for_services("names", |services| services.iter().any(|row| !row.name.is_empty()))?;
        Ok(Self { daemon, manifests, node, world })
    }

    /// Where the daemon keeps names.
    fn run_dir(&self) -> Result<PathBuf> {
        Ok(Path::new("/run").join(self.daemon.pin_dir().file_name().context("no name")?))
    }
}

fn service(name: &str, vip: &str) -> Result<Service> {
    Ok(Service::new(name, "member2", &[vip], &[Port::new("", "TCP", 80)])?.annotated("enabled", "true"))
}

/// Runs mcs-proxy to its end.
fn run(node: &Node, arguments: &[&str]) -> Result<Output> {
    Ok(node.namespace.command(programs::mcs_proxy()?)?.args(arguments).output()?)
}

#[test]
fn a_source_of_no_use_leaves_nothing_pinned() -> Result<()> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let pin_dir = format!("/sys/fs/bpf/{}", node.namespace.name());
    for source in [["--source", "directory=/not/there"], ["--kubeconfig", "/not/there"]] {
        let own = ["run", "--cluster-name", "member2", "--pin-dir", &pin_dir];
        let output = run(&node, &[&own[..], &source].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{source:?}: {said}");
        ensure!(said.contains("/not/there"), "{source:?}: {said}");
        ensure!(said.matches("No such file").count() == 1, "{source:?}: {said}");
        ensure!(!Path::new(&pin_dir).exists(), "{source:?} was refused after {pin_dir} was made");
    }
    Ok(())
}

#[test]
fn two_daemons_never_share_a_pin_directory() -> Result<()> {
    let stage = Stage::new()?;
    let (pin_dir, source) =
        (stage.daemon.pin_dir().display().to_string(), stage.manifests.folder().display().to_string());
    let other_run_dir = stage.world.folder("run")?.display().to_string();
    for run_dir in [other_run_dir, stage.run_dir()?.display().to_string()] {
        let source = format!("directory={source}");
        let own = ["run", "--cluster-name", "member2", "--pin-dir", &pin_dir, "--source", &source];
        // It ends by itself, or the test hangs and shows it.
        let output = run(&stage.node, &[&own[..], &["--run-dir", &run_dir]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("another mcs-proxy runs"), "{run_dir}: {said}");
    }
    Ok(())
}

#[test]
fn a_daemon_whose_pins_were_removed_says_so_and_ends() -> Result<()> {
    let mut stage = Stage::new()?;
    fs::remove_dir_all(stage.daemon.pin_dir())?;
    let _pod = stage.world.add_pod(&stage.node, "client", &["10.12.0.9"])?;
    stage.daemon.wait_for_log("it was removed, and what was pinned there")?;
    stage.daemon.launch()?;
    ensure!(stage.daemon.services()?.len() == 1);
    Ok(())
}

#[test]
fn services_are_listed_without_names_if_names_cannot_be_read() -> Result<()> {
    let stage = Stage::new()?;
    fs::write(stage.run_dir()?.join("catalog.jsonl"), "{\"half\n")?;
    let services = stage.daemon.services()?;
    ensure!(services.len() == 1 && services[0].name.is_empty(), "{services:?}");
    Ok(())
}

#[test]
fn names_that_could_not_be_written_are_written_later() -> Result<()> {
    let mut stage = Stage::new()?;
    let run_dir = stage.run_dir()?;
    let in_the_way = run_dir.join("catalog.jsonl.partial");
    fs::create_dir(&in_the_way)?;
    // Changes are appended to a file that is there.
    fs::remove_file(run_dir.join("catalog.jsonl"))?;
    for (name, vip) in [("second", "10.13.0.2"), ("third", "10.13.0.3")] {
        stage.manifests.service(&service(name, vip)?)?;
        let vip: std::net::IpAddr = vip.parse()?;
        stage.daemon.wait_for_services(name, |services| services.iter().any(|row| row.vip == vip))?;
    }
    stage.daemon.wait_for_log("lacks names")?;
    fs::remove_dir(&in_the_way)?;
    stage.daemon.wait_for_services("names", |services| services.iter().all(|row| !row.name.is_empty()))?;
    let log = stage.daemon.log();
    ensure!(log.matches("lacks names").count() == 1, "told more than once: {log}");
    Ok(())
}
