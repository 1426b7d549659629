//! Bad input: an error or a warning that names the thing and the way out, and everything else goes on.

use anyhow::Result;
use mcs_proxy_tests::{
    Daemon, Node, World, client,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
    programs,
};
use std::{fs, net::IpAddr};

const POD: &str = "10.12.0.6";
/// What no manifest has, to leave one as it is.
const NOTHING: &str = "\0";

/// A node of member2, in a world of its own.
fn node() -> Result<(World, Node)> {
    let mut world = World::new()?;
    let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
    Ok((world, node))
}

/// The command refuses these arguments with all of these words.
fn assert_refused(node: &Node, arguments: &[&str], words: &[&str]) -> Result<()> {
    let output = node.namespace.command(programs::mcs_proxy()?)?.args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} was not refused: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in: {said}");
    }
    Ok(())
}

#[test]
fn arguments_that_cannot_be_are_refused_with_the_way_out() -> Result<()> {
    let (_world, node) = node()?;
    let pins = format!("/sys/fs/bpf/{}", node.namespace.name());
    let run = ["run", "--cluster-name", "member2", "--pin-dir", &pins];
    let with = |more: &[&'static str]| [&run[..], more].concat();
    assert_refused(&node, &["run"], &["--cluster-name"])?;
    assert_refused(
        &node,
        &with(&["--source", "guess"]),
        &["guess", "--source", "kubernetes", "directory=PATH"],
    )?;
    assert_refused(
        &node,
        &with(&["--source", "directory=/not/there"]),
        &["/not/there", "create the directory"],
    )?;
    assert_refused(&node, &with(&["--kubeconfig", "/not/there"]), &["/not/there", "--kubeconfig"])?;
    assert_refused(
        &node,
        &with(&["--source", "directory=/tmp", "--kubeconfig", "/not/used"]),
        &["--kubeconfig is for --source kubernetes", "directory=/tmp"],
    )?;
    assert_refused(&node, &with(&["--default-algorithm", "best"]), &["best", "round-robin", "random"])?;
    assert_refused(&node, &["services", "-o", "xml"], &["xml", "table", "json", "yaml"])?;
    assert_refused(&node, &["services", "--pin-dir", &format!("{pins}-none")], &["-none", "--pin-dir"])?;
    let no_bpffs =
        ["run", "--cluster-name", "member2", "--source", "directory=/tmp", "--pin-dir", "/run/not-bpffs"];
    assert_refused(&node, &no_bpffs, &["/run/not-bpffs", "mount -t bpf"])
}

/// One manifest after another that makes no sense, beside a Service that does.
#[test]
fn objects_that_make_no_sense_are_named_and_harm_no_other() -> Result<()> {
    let (world, node) = node()?;
    let _pod = world.add_serving_pod(&node, "serve-1", &[POD])?;
    let caller = world.add_pod(&node, "client", &["10.12.0.9"])?;
    let manifests = Manifests::new(world.folder("manifests")?)?;
    let ports = [Port::new("", "TCP", 80)];
    let serve = Service::new("serve", "member2", &["10.13.181.116"], &ports)?.annotated("enabled", "true");
    let pods = [Endpoint::new(POD, "member2-node-1", "serve-1")?];
    manifests.service(&serve)?;
    manifests.slice(&Slice::new("serve-mvgj7", "serve", "member2", "member2", &pods))?;
    let mut daemon = Daemon::start(&node, manifests.folder())?;

    // The manifest of a Service that is opted in, with one text in place of another.
    let service = |name: &str, vip: &str, is: &str, becomes: &str| {
        let service = Service::new(name, "member2", &[vip], &ports)?.annotated("enabled", "true");
        anyhow::Ok(service.yaml().replace(is, becomes))
    };
    let slice = |name: &str, address: &str, is: &str, becomes: &str| {
        let pods = [Endpoint::new(address, "node-1", "pod-1")?];
        anyhow::Ok(Slice::new(name, "serve", "member2", "member1", &pods).yaml().replace(is, becomes))
    };
    let portless = Service::new("portless", "member2", &["10.13.0.10"], &[])?.annotated("enabled", "true");
    // A name, a manifest, and words that a warning about it has.
    let cases = [
        ("portless", portless.yaml(), "portless"),
        ("zero", service("zero", "10.13.0.11", "port: 80\n", "port: 0\n")?, "zero"),
        ("huge", service("huge", "10.13.0.12", "port: 80\n", "port: 80000\n")?, "huge"),
        ("maybe", service("maybe", "10.13.0.13", "enabled: \"true\"", "enabled: \"maybe\"")?, "maybe"),
        ("address", service("address", "10.13.0.14", "10.13.0.14", "10.13.0.1444")?, "10.13.0.1444"),
        ("twin", service("twin", "10.13.181.116", NOTHING, NOTHING)?, "twin"),
        ("slice-loop", slice("serve-loop", "127.0.0.1", NOTHING, NOTHING)?, "127.0.0.1"),
        ("slice-zero", slice("serve-zero", POD, "port: 8080", "port: 0")?, "serve-zero"),
        ("not-yaml", "kind: [Service".to_owned(), "not-yaml"),
        ("no-kind", "{}".to_owned(), "no-kind"),
    ];
    for (name, manifest, words) in &cases {
        manifests.write(name, manifest)?;
        daemon.wait_for_warning(words)?;
        let answers = client::http(&caller.namespace, "10.13.181.116:80".parse()?, 2)?;
        assert_eq!(answers, [POD.parse::<IpAddr>()?; 2], "{name}");
    }
    // Nulls wherever a list may be are no trouble at all.
    manifests.slice(&Slice::new("member3-serve-5qzln", "serve", "member2", "member3", &[]))?;
    // All of it still stands when the daemon starts over with it.
    daemon.stop();
    daemon.launch()?;
    assert_eq!(client::http(&caller.namespace, "10.13.181.116:80".parse()?, 1)?, [POD.parse::<IpAddr>()?]);
    Ok(())
}

/// An API server that does not answer: said, with its address, and waited for.
#[test]
fn an_api_server_that_does_not_answer_is_named_and_waited_for() -> Result<()> {
    let (world, node) = node()?;
    let kubeconfig = world.folder("kube")?.join("kubeconfig");
    fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: nobody, \
         clusters: [{name: nobody, cluster: {server: 'https://172.18.0.254:6443'}}], \
         users: [{name: nobody, user: {token: none}}], \
         contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]}",
    )?;
    let mut daemon = Daemon::start_without_sync(&node, &["--kubeconfig", &kubeconfig.display().to_string()])?;
    daemon.wait_for_warning("172.18.0.254:6443")?;
    assert!(daemon.is_running()?);
    assert!(!daemon.log().contains("synced"));
    Ok(())
}
