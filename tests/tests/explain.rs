//! `mcs-proxy explain` beside a running daemon, and after its end.

use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, World,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
    programs,
};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

const VIP: &str = "10.13.181.116";

fn explained(daemon: &Daemon, target: &str) -> Result<Value> {
    let text = daemon.show(&["explain", target, "-o", "json"])?;
    let explanations: Value = serde_json::from_str(&text).with_context(|| text)?;
    Ok(explanations[0].clone())
}

#[test]
fn what_is_explained_and_what_the_maps_hold_agree_with_a_daemon_and_without() -> Result<()> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    let manifests = Manifests::new(world.folder("manifests")?)?;
    let service = Service::new("serve", "member2", &[VIP], &[Port::new("", "TCP", 80)])?;
    manifests.service(&service.annotated("enabled", "true"))?;
    let pod = |address| Endpoint::new(address, "member1-node-1", "serve-1");
    let (good, bad) = (pod("10.10.0.6")?, pod("169.254.169.254")?);
    manifests.slice(&Slice::new("member1-serve-bcfd6", "serve", "member2", "member1", &[good, bad]))?;
    let mut daemon = Daemon::start(&node, manifests.folder())?;

    for target in ["default/serve", "10.13.181.116:80"] {
        let told = explained(&daemon, target)?;
        let frontend = &told["frontends"][0];
        ensure!(told["told_by"] == "daemon" && frontend["maps"]["agree"] == true, "{target}: {told:#}");
        let [used, refused] = [&frontend["endpoints"][0], &frontend["endpoints"][1]];
        ensure!(used["cluster"] == "member1" && used["share"] == 1.0, "{target}: {told:#}");
        ensure!(refused["slots"] == 0 && refused["reason"] == "its address is link-local", "{told:#}");
        let problem = told["problems"][0].as_str().unwrap_or_default();
        ensure!(problem.contains("169.254.169.254 is link-local"), "{told:#}");
    }
    let run_dir = Path::new("/run").join(daemon.pin_dir().file_name().context("no name")?);
    let socket = fs::metadata(run_dir.join("mcs-proxy.sock"))?;
    ensure!(socket.permissions().mode() & 0o777 == 0o600, "{socket:?}");

    daemon.stop();
    let told = explained(&daemon, "default/serve")?;
    let frontend = &told["frontends"][0];
    ensure!(told["told_by"] == "names" && frontend["maps"]["agree"] == true, "{told:#}");
    ensure!(frontend["endpoints"][0]["slots"] == 1 && frontend["algorithm"] == "round-robin", "{told:#}");
    Ok(())
}

#[test]
fn manifests_are_explained_without_pins_or_daemon() -> Result<()> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/demo-member2");
    let output = Command::new(programs::mcs_proxy()?)
        .args(["--pin-dir", "/not/there", "explain", "--cluster-name", "member2", "-f"])
        .arg(manifests)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for words in ["default/serve is served", "TCP 10.13.181.116:80", "Karmada MultiClusterService", "50.0 %"]
    {
        ensure!(said.contains(words), "no `{words}`: {said}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_explained_ends_with_a_code_of_its_own_and_what_is_wrong_beside_is_on_standard_error()
-> Result<()> {
    let world = World::new()?;
    let manifests = Manifests::new(world.folder("manifests")?)?;
    let service = Service::new("serve", "member2", &[VIP], &[Port::new("", "TCP", 80)])?;
    manifests.service(&service.annotated("enabled", "true"))?;
    fs::write(manifests.folder().join("broken.yaml"), "kind: [Service")?;
    let folder = manifests.folder().to_str().context("an odd path")?;
    for (arguments, code, words) in [
        (&["explain"][..], 2, "SERVICE|VIP:PORT"),
        (&["explain", "default/serve"], 3, "/not/there"),
        (&["explain", "-f", folder], 0, "mcs-proxy: problem: File broken.yaml"),
        (&["explain", "-f", folder, "default/nope"], 1, "mcs-proxy: problem: File broken.yaml"),
        (&["explain", "-f", folder, "default/nope"], 1, "no Service default/nope"),
    ] {
        let output = Command::new(programs::mcs_proxy()?)
            .args(["--pin-dir", "/not/there"])
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{arguments:?}: {:?}, {said}", output.status);
        ensure!(said.contains(words), "{arguments:?}: no `{words}`: {said}");
    }
    Ok(())
}
