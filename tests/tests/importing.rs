//! A real API server with RBAC and an audit log: what the daemon needs, what it asks for, and how it follows
//! ServiceImports whose CRD comes and goes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use anyhow::{Result, ensure};
use mcs_proxy_tests::{
    Daemon, ServiceRow, World,
    api::ApiServer,
    crd::{CRDS, GROUP as MCS, SERVICE_IMPORTS as CRD, service_imports as crd},
    karmada::{Port, Service},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

const DEFAULT: &str = "/api/v1/namespaces/default/services";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/mcs-proxy";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/mcs-proxy/roles/mcs-proxy";
const VIP: &str = "243.0.0.9";

/// A node of member2, an API server that grants what `deploy/base` grants, and the arguments of a daemon there.
struct Stage {
    world: World,
    api: ApiServer,
    node: mcs_proxy_tests::Node,
    arguments: Vec<String>,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut world = World::new()?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
        let api = ApiServer::start(&world, "10.13.0.0/16")?;
        api.grant()?;
        api.create("/api/v1/nodes", "{apiVersion: v1, kind: Node, metadata: {name: member2-node-1}}")?;
        let service = Service::new("serve", "member2", &["10.13.181.116"], &[Port::new("", "TCP", 80)])?;
        api.create(DEFAULT, &service.annotated("enabled", "true").yaml())?;
        let kubeconfig = api.daemon_kubeconfig().display().to_string();
        let arguments = [
            "--source",
            "kubernetes",
            "--kubeconfig",
            &kubeconfig,
            "--settings",
            "mcs-proxy/mcs-proxy",
            "--serviceimport-cidrs",
            "243.0.0.0/8",
            "--discovery-interval",
            "1s",
            "--event-jitter",
            "100ms",
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        Ok(Self { world, api, node, arguments })
    }

    fn daemon(&self) -> Result<Daemon> {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let mut daemon = Daemon::start_with(&self.node, &arguments)?;
        daemon.expect_outages();
        Ok(daemon)
    }

    /// The objects of an MCS implementation without derived Services.
    fn import(&self, version: &str) -> Result<()> {
        let import = json!({
            "apiVersion": format!("{MCS}/{version}"), "kind": "ServiceImport",
            "metadata": {"name": "imported", "annotations": {"mcs-proxy.io/enabled": "true"}},
            "spec": {"type": "ClusterSetIP", "ips": [VIP], "ports": [{"name": "http", "port": 80}]},
        });
        let path = format!("/apis/{MCS}/{version}/namespaces/default/serviceimports");
        // The CRD is there a moment before its kind is served.
        await_true("the kind", || Ok(self.api.get(&path).is_ok()))?;
        self.api.create(&path, &import.to_string())
    }
}

fn await_true(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < Duration::from_secs(30), "no {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn has_import(rows: &[ServiceRow]) -> bool {
    rows.iter().any(|row| row.name == "serviceimport/imported" && row.vip.to_string() == VIP)
}

fn has_service(rows: &[ServiceRow]) -> bool {
    rows.iter().any(|row| row.name == "serve")
}

#[test]
fn without_any_one_of_its_rights_the_daemon_says_which_and_leaves_the_maps_as_they_are() -> Result<()> {
    let stage = Stage::new()?;
    stage.api.create(CRDS, &crd(&["v1beta1"]).to_string())?;
    let mut daemon = stage.daemon()?;
    daemon.wait_for_services("the Service", has_service)?;
    daemon.stop();
    let all = |role: &str| Ok::<Value, anyhow::Error>(stage.api.get(role)?["rules"].clone());
    for (role, rules) in [(ROLES, all(ROLES)?), (ROLE, all(ROLE)?)] {
        let rules = rules.as_array().unwrap().clone();
        for (group, resource) in [
            ("", "services"),
            ("", "nodes"),
            ("discovery.k8s.io", "endpointslices"),
            (MCS, "serviceimports"),
            ("", "configmaps"),
        ] {
            if !rules.iter().any(|rule| lists(rule, resource)) {
                continue;
            }
            let name = if role == ROLE { "mcs-proxy" } else { "" };
            stage.api.patch(role, &json!({"rules": without(&rules, resource)}))?;
            await_true("loss of a right", || Ok(!stage.api.may("list", group, resource, name)?))?;
            daemon.launch_without_sync()?;
            let said = if resource == "configmaps" { "the ConfigMap" } else { resource };
            daemon.wait_for_warning(&format!("grant get, list and watch on {said}"))?;
            ensure!(!daemon.log().contains("synced"), "in step without {resource}: {}", daemon.log());
            ensure!(has_service(&daemon.services()?), "without {resource} the maps changed");

            stage.api.patch(role, &json!({"rules": rules}))?;
            await_true("right", || stage.api.may("list", group, resource, name))?;
            daemon.wait_for_log("synced")?;
            ensure!(has_service(&daemon.services()?));
            daemon.stop();
        }
    }
    drop(stage.world);
    Ok(())
}

fn lists(rule: &Value, resource: &str) -> bool {
    rule["resources"].as_array().is_some_and(|resources| resources.iter().any(|name| name == resource))
}

fn without(rules: &[Value], resource: &str) -> Vec<Value> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        rule["resources"].as_array_mut().unwrap().retain(|name| name != resource);
    }
    rules.retain(|rule| rule["resources"] != json!([]));
    rules
}

#[test]
fn the_crd_of_service_imports_may_come_and_go_and_nothing_is_asked_that_is_not_granted() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut daemon = stage.daemon()?;
    daemon.wait_for_log("has no serviceimports")?;
    daemon.wait_for_services("the Service", has_service)?;

    stage.api.create(CRDS, &crd(&["v1alpha1"]).to_string())?;
    stage.import("v1alpha1")?;
    daemon.wait_for_services("the import", has_import)?;
    daemon.wait_for_log("following serviceimports of multicluster.x-k8s.io/v1alpha1")?;

    // An upgrade of the CRD: the better version is followed, and the import stays.
    stage.api.patch(&format!("{CRDS}/{CRD}"), &json!({"spec": crd(&["v1alpha1", "v1beta1"])["spec"]}))?;
    daemon.wait_for_log("following serviceimports of multicluster.x-k8s.io/v1beta1")?;
    ensure!(has_import(&daemon.services()?));

    // An API server that starts does not know its CRDs at once; that is no reason to let go.
    stage.api.stop_server();
    stage.api.start_server()?;
    let discoveries = || {
        Ok::<_, anyhow::Error>(stage.api.asked_by_the_daemon()?.iter().filter(|it| is_discovery(it)).count())
    };
    let before = discoveries()?;
    await_true("two discoveries since", || Ok(discoveries()? >= before + 2))?;
    ensure!(has_import(&daemon.services()?), "a restart of the API server took the import");

    // A bad value of the settings is told of.
    stage.api.create(
        "/api/v1/namespaces/mcs-proxy/configmaps",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: mcs-proxy}, data: {member1: '{state: gone}'}}",
    )?;
    daemon.wait_for_warning("data[member1].state: `gone` is not understood")?;
    let created = |event: &Value| {
        event["verb"] == "create"
            && event["objectRef"]["apiGroup"] == "events.k8s.io"
            && event["responseStatus"]["code"] == 201
    };
    await_true("Event", || Ok(stage.api.asked_by_the_daemon()?.iter().any(created)))?;

    stage.api.delete(&format!("{CRDS}/{CRD}"))?;
    daemon.wait_for_services("no import", |rows| !has_import(rows) && has_service(rows))?;
    stage.api.create(CRDS, &crd(&["v1beta1"]).to_string())?;
    stage.import("v1beta1")?;
    daemon.wait_for_services("the import again", has_import)?;

    only_what_is_granted(&stage.api.asked_by_the_daemon()?)
}

/// Whether the daemon was told which versions of ServiceImports there are.
fn is_discovery(event: &Value) -> bool {
    event["requestURI"].as_str().is_some_and(|uri| uri.starts_with("/apis/multicluster.x-k8s.io/v1"))
        && event["objectRef"]["resource"].is_null()
        && event["responseStatus"]["code"] == 200
}

/// Lists and watches of five kinds, of two of them by name; which kinds there are; and Events, created. That some were refused says
/// nothing: an API server that starts does so until it knows its roles.
fn only_what_is_granted(asked: &[Value]) -> Result<()> {
    let mut used = BTreeSet::new();
    for event in asked {
        let (uri, reference) = (event["requestURI"].as_str().unwrap_or_default(), &event["objectRef"]);
        let Some(resource) = reference["resource"].as_str() else {
            ensure!(uri.starts_with("/apis/multicluster.x-k8s.io/v1"), "asked for {uri}");
            continue;
        };
        match resource {
            "nodes" => ensure!(uri.contains("fieldSelector=metadata.name%3Dmember2-node-1"), "{uri}"),
            "configmaps" => ensure!(
                uri.contains("/namespaces/mcs-proxy/")
                    && uri.contains("fieldSelector=metadata.name%3Dmcs-proxy"),
                "{uri}"
            ),
            _ => {}
        }
        used.insert(format!("{} {resource}", event["verb"].as_str().unwrap_or_default()));
    }
    let kinds = ["configmaps", "endpointslices", "nodes", "serviceimports", "services"];
    let read = ["list", "watch"].iter().flat_map(|verb| kinds.map(|kind| format!("{verb} {kind}")));
    let expected: BTreeSet<String> = read.chain(["create events".to_owned()]).collect();
    ensure!(used == expected, "{used:?}");
    Ok(())
}
