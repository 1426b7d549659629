//! `mcs-proxy uninstall` against a real API server: two nodes with a client each, both of which call `serve`.

use anyhow::{Context, Result, ensure};
use mcs_proxy_ebpf::abi::ABI_VERSION;
use mcs_proxy_tests::{
    Daemon, Node, POD_PORT, Pod, Process, World,
    api::ApiServer,
    client::{self, Connection},
    karmada::{Endpoint, Port, Service, Slice},
    programs,
};
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.13.0.80";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SETTINGS: &str = "/api/v1/namespaces/mcs-proxy/configmaps/mcs-proxy";
const PODS: &str = "/api/v1/namespaces/mcs-proxy/pods";

/// Fields are dropped in order.
struct Stage {
    daemons: Vec<Daemon>,
    clients: Vec<Pod>,
    _backend: Pod,
    api: ApiServer,
    nodes: Vec<Node>,
    _world: World,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut world = World::new()?;
        let nodes = vec![
            world.add_node("member2", "node-1", &["10.12.1.0/24"])?,
            world.add_node("member2", "node-2", &["10.12.2.0/24"])?,
        ];
        let api = ApiServer::start(&world, "10.13.0.0/16")?;
        api.grant()?;
        let settings = include_str!("../../../deploy/base/settings.yaml");
        api.create("/api/v1/namespaces/mcs-proxy/configmaps", settings)?;
        let backend = world.add_serving_pod(&nodes[0], "serve-1", &["10.12.1.6"])?;
        let clients = vec![
            world.add_pod(&nodes[0], "client-1", &["10.12.1.9"])?,
            world.add_pod(&nodes[1], "client-2", &["10.12.2.9"])?,
        ];
        let service = Service::new("serve", "member2", &[VIP], &[Port::new("http", "TCP", 80)])?;
        api.create(SERVICES, &service.annotated("enabled", "true").yaml())?;
        let slice = Slice::new(
            "member1-serve",
            "serve",
            "member2",
            "member1",
            &[Endpoint::new("10.12.1.6", "node-1", "serve-1")?],
        );
        let slice = slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]);
        api.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice.yaml())?;
        let mut stage = Self { daemons: Vec::new(), clients, _backend: backend, api, nodes, _world: world };
        for node in 0..2 {
            stage.daemons.push(stage.daemon(node)?);
            stage.daemon_pod(&stage.nodes[node].name)?;
        }
        for daemon in &mut stage.daemons {
            daemon.wait_for_services("an endpoint", |rows| {
                rows.iter().any(|row| row.endpoints.iter().any(|endpoint| endpoint.in_maps))
            })?;
        }
        Ok(stage)
    }

    fn daemon(&self, node: usize) -> Result<Daemon> {
        let kubeconfig = self.api.daemon_kubeconfig().display().to_string();
        let arguments =
            ["--source", "kubernetes", "--kubeconfig", &kubeconfig, "--settings", "mcs-proxy/mcs-proxy"];
        Daemon::start_with(&self.nodes[node], &arguments)
    }

    /// As the DaemonSet's controller and its kubelet would have entered it.
    fn daemon_pod(&self, node: &str) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("mcs-proxy-{node}"),
                "labels": {"app.kubernetes.io/name": "mcs-proxy"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "mcs-proxy",
                    "uid": "0709d42f-37ad-482c-b4cb-d6d5a7c1576a",
                }],
            },
            "spec": {"nodeName": node, "containers": [{"name": "mcs-proxy", "image": "mcs-proxy"}]},
        });
        self.api.create(PODS, &pod.to_string())
    }

    /// With the rights of the Job's service account.
    fn uninstall(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.api_command()?;
        Ok(command.args(arguments).output()?)
    }

    fn api_command(&self) -> Result<std::process::Command> {
        let mut command = self.nodes[0].namespace.command(programs::mcs_proxy()?)?;
        command.args(["uninstall", "--kubeconfig"]).arg(self.api.leaver_kubeconfig());
        Ok(command)
    }

    fn uninstall_meanwhile(&self, arguments: &[&str]) -> Result<Process> {
        let kubeconfig = self.api.leaver_kubeconfig().display().to_string();
        let own = ["uninstall", "--kubeconfig", &kubeconfig];
        self.nodes[0].namespace.spawn("uninstall", &programs::mcs_proxy()?, &[&own[..], arguments].concat())
    }

    fn run_dir(&self, node: usize) -> Result<PathBuf> {
        Ok(Path::new("/run").join(self.daemons[node].pin_dir().file_name().context("no name")?))
    }

    /// Nothing is pinned, no program runs, and of files there is but the lock.
    fn ensure_clean(&self, node: usize) -> Result<()> {
        ensure!(!self.daemons[node].pin_dir().exists(), "something is pinned");
        let files: Vec<_> =
            fs::read_dir(self.run_dir(node)?)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        ensure!(files.is_empty() || files == ["lock"], "{files:?}");
        let interface = &self.clients[node].host_interface;
        let line = self.nodes[node].namespace.ip(&format!("-o link show dev {interface}"))?;
        let index: u32 = line.split(':').next().context("no index")?.parse()?;
        let attached = self.nodes[node].namespace.run(move || {
            mcs_proxy::dataplane::sys::tcx_query(index, mcs_proxy::dataplane::sys::TcxHook::Ingress)
        })?;
        ensure!(attached.is_empty(), "{attached:?}");
        Ok(())
    }

    fn settings(&self) -> Result<Value> {
        self.api.get(SETTINGS)
    }
}

fn vip() -> Result<SocketAddr> {
    Ok(SocketAddr::new(VIP.parse()?, 80))
}

fn said(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn uninstall_drains_every_node_leaves_it_clean_and_names_what_outlived_the_drain() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut ends = Connection::open(&stage.clients[0].namespace, vip()?)?;
    let mut outlives = Connection::open(&stage.clients[1].namespace, vip()?)?;
    ends.ask()?;
    outlives.ask()?;
    let mut job = stage.uninstall_meanwhile(&["--drain", "6s"])?;
    let start = Instant::now();
    stage.daemons[0].wait_for_log("connections are still open")?;
    // What is there goes on, what is new is left to what is beneath.
    ends.ask()?;
    outlives.ask()?;
    ensure!(stage.daemons[0].services()?.is_empty());
    drop(ends);
    stage.daemons[0].wait_for_log("no connection outlived the drain")?;
    ensure!(start.elapsed() < Duration::from_secs(6), "a node without connections waits for nothing");
    outlives.ask()?;
    stage.daemons[1].wait_for_log("a connection outlives the drain: TCP 10.12.2.9:")?;
    while job.is_running()? {
        ensure!(start.elapsed() < Duration::from_secs(60), "{}", fs::read_to_string(job.log())?);
        thread::sleep(Duration::from_millis(20));
    }
    let report = job.rest()?;
    ensure!(
        report.contains("node-1: mcs-proxy 0.1.0 has left; no connection outlived the drain\n"),
        "{report}"
    );
    let named = "node-2: mcs-proxy 0.1.0 has left; a connection outlived the drain: TCP 10.12.2.9:";
    ensure!(report.contains(named) && report.contains(" to 10.13.0.80:80 (default/serve)\n"), "{report}");
    stage.ensure_clean(0)?;
    stage.ensure_clean(1)?;
    ensure!(stage.settings()?["data"]["mode"] == "drain", "{}", stage.settings()?);

    // A daemon that is started anew leaves again; those that are ended take the last file with them.
    stage.daemons[0].crash()?;
    stage.daemons[0].launch_without_sync()?;
    stage.daemons[0].wait_for_log("no connection outlived the drain")?;
    stage.ensure_clean(0)?;
    // What they were told by goes with all the rest.
    stage.api.delete(SETTINGS)?;
    for node in 0..2 {
        stage.daemons[node].stop();
        ensure!(!stage.run_dir(node)?.exists(), "node {node}");
    }
    Ok(())
}

/// They go on behind the programs of ours, and end with those.
#[test]
fn connections_of_another_layout_are_waited_for_and_named_as_well() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut ends = Connection::open(&stage.clients[0].namespace, vip()?)?;
    let mut outlives = Connection::open(&stage.clients[1].namespace, vip()?)?;
    ends.ask()?;
    outlives.ask()?;
    for daemon in &mut stage.daemons {
        daemon.crash()?;
        let pins = |version: u32| daemon.pin_dir().join(format!("v{version}"));
        fs::rename(pins(ABI_VERSION), pins(ABI_VERSION - 1))?;
        daemon.set_flag("--flow-scan-interval", "1s");
        daemon.launch()?;
        ensure!(daemon.connections()? == 0, "it is another layout's");
    }
    let mut job = stage.uninstall_meanwhile(&["--drain", "6s"])?;
    for daemon in &mut stage.daemons {
        daemon.wait_for_log("connections are still open open=1")?;
    }
    ends.ask()?;
    outlives.ask()?;
    drop(ends);
    stage.daemons[0].wait_for_log("no connection outlived the drain")?;
    outlives.ask()?;
    stage.daemons[1].wait_for_log("a connection outlives the drain: TCP 10.12.2.9:")?;
    let report = job.rest()?;
    let named = "node-2: mcs-proxy 0.1.0 has left; a connection outlived the drain: TCP 10.12.2.9:";
    ensure!(report.contains(named) && report.contains(" to 10.13.0.80:80 (default/serve)\n"), "{report}");
    ensure!(
        report.contains("node-1: mcs-proxy 0.1.0 has left; no connection outlived the drain\n"),
        "{report}"
    );
    stage.ensure_clean(0)?;
    stage.ensure_clean(1)
}

#[test]
fn uninstall_names_the_nodes_that_did_not_report_and_can_be_taken_back() -> Result<()> {
    let mut stage = Stage::new()?;
    stage.daemons[1].crash()?;
    stage.daemon_pod("node-of-old")?;
    let output = stage.uninstall(&["--drain", "1s", "--patience", "3s"])?;
    let (_, failure) = said(&output);
    ensure!(output.status.code() == Some(1), "{failure}");
    ensure!(failure.contains("no report of node-2, node-of-old: `mcs-proxy cleanup` there"), "{failure}");
    ensure!(failure.contains("node-1: mcs-proxy 0.1.0 has left"), "{failure}");
    stage.ensure_clean(0)?;
    // What the dead daemon has left goes by hand.
    ensure!(stage.daemons[1].pin_dir().exists());
    stage.daemons[1].show(&["cleanup"])?;

    let output = stage.uninstall(&["--undo"])?;
    ensure!(output.status.success(), "{}", said(&output).1);
    let settings = stage.settings()?;
    ensure!(
        settings["data"]["mode"].is_null() && settings["metadata"]["annotations"].is_null(),
        "{settings}"
    );
    let start = Instant::now();
    while stage.daemons[0].is_running()? {
        ensure!(start.elapsed() < Duration::from_secs(30), "{}", stage.daemons[0].log());
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(stage.daemons[0].log().contains("no longer to leave this node"), "{}", stage.daemons[0].log());
    stage.daemons[0].launch()?;
    stage.daemons[0].wait_for_services("an endpoint", |rows| !rows.is_empty())?;
    client::http(&stage.clients[0].namespace, vip()?, 1)?;
    Ok(())
}

#[test]
fn uninstall_refuses_what_would_leave_services_to_nobody_or_has_nobody_to_order() -> Result<()> {
    let stage = Stage::new()?;
    let label = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "mcs-proxy"}}});
    stage.api.patch(&format!("{SERVICES}/serve"), &label)?;
    let output = stage.uninstall(&[])?;
    let (_, failure) = said(&output);
    ensure!(output.status.code() == Some(1), "{failure}");
    for words in ["nobody would serve default/serve", "kubectl label service", "--force"] {
        ensure!(failure.contains(words), "no `{words}`: {failure}");
    }
    for (arguments, words) in [
        (&["--force", "--settings", "mcs-proxy/other"][..], "configmaps \"other\" is forbidden"),
        (&["--force", "--selector", "app.kubernetes.io/name=other"], "name theirs by --selector"),
    ] {
        let output = stage.uninstall(arguments)?;
        let (_, failure) = said(&output);
        ensure!(output.status.code() == Some(1) && failure.contains(words), "no `{words}`: {failure}");
    }
    let settings = stage.settings()?;
    ensure!(settings["metadata"]["annotations"].is_null() && settings["data"].is_null(), "{settings}");
    let output = stage.uninstall(&["--force", "--drain", "1s"])?;
    ensure!(output.status.success(), "{}", said(&output).1);
    Ok(())
}
