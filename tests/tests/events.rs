//! Events at a real API server: what is wrong with an object is written beside it, once for the whole cluster.

use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, Node, World,
    api::ApiServer,
    karmada::{Endpoint, Port, Service, Slice},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/mcs-proxy";

struct Stage {
    api: ApiServer,
    nodes: [Node; 2],
    _world: World,
}

impl Stage {
    /// Two nodes of member2 and an API server for both families.
    fn new() -> Result<Self> {
        let mut world = World::new()?;
        let nodes = [
            world.add_node("member2", "node-1", &["10.12.1.0/24", "fd10:12:1::/64"])?,
            world.add_node("member2", "node-2", &["10.12.2.0/24", "fd10:12:2::/64"])?,
        ];
        let api = ApiServer::start(&world, "10.13.0.0/16,fd10:13::/112")?;
        api.grant()?;
        for (node, address) in [("node-1", "192.0.2.1"), ("node-2", "192.0.2.2")] {
            api.create(
                "/api/v1/nodes",
                &format!("{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}}}"),
            )?;
            let addresses = json!([{"type": "InternalIP", "address": address}]);
            api.patch(&format!("/api/v1/nodes/{node}/status"), &json!({"status": {"addresses": addresses}}))?;
        }
        Ok(Self { api, nodes, _world: world })
    }

    fn daemon(&self, node: usize) -> Result<Daemon> {
        let kubeconfig = self.api.daemon_kubeconfig().display().to_string();
        let arguments = ["--source", "kubernetes", "--kubeconfig", &kubeconfig, "--event-jitter", "1s"];
        Daemon::start_with(&self.nodes[node], &arguments)
    }

    fn service(&self, name: &str, ip: &str, algorithm: &str) -> Result<()> {
        let service = Service::new(name, "member2", &[ip], &[Port::new("", "TCP", 80)])?;
        let service = service.annotated("enabled", "true").annotated("algorithm", algorithm);
        self.api.create(SERVICES, &service.yaml())
    }

    fn import(&self, name: &str, service: &str, addresses: &[&str]) -> Result<()> {
        let pods = addresses.iter().map(|address| Endpoint::new(address, "node", "pod"));
        let pods = pods.collect::<Result<Vec<_>>>()?;
        self.api.create(SLICES, &Slice::new(name, service, "member2", "member1", &pods).yaml())
    }

    /// Ours about the object of this name; one that was renewed as its hour turned counts once.
    fn events(&self, name: &str) -> Result<Vec<Value>> {
        let listed = self.api.get(EVENTS)?;
        let ours = |event: &&Value| {
            event["reportingController"] == "mcs-proxy.io/mcs-proxy" && event["regarding"]["name"] == name
        };
        let ours = listed["items"].as_array().context("no list")?.iter().filter(ours);
        let unperiodic = |event: &Value| {
            let (name, _) = event["metadata"]["name"].as_str()?.rsplit_once('.')?;
            Some((name.to_owned(), event.clone()))
        };
        Ok(ours.filter_map(unperiodic).collect::<BTreeMap<_, _>>().into_values().collect())
    }

    fn wait_for_events(&self, name: &str, count: usize) -> Result<Vec<Value>> {
        let start = Instant::now();
        loop {
            let events = self.events(name)?;
            if events.len() >= count {
                ensure!(events.len() == count, "{events:#?}");
                return Ok(events);
            }
            ensure!(
                start.elapsed() < Duration::from_secs(30),
                "{} of {count} Events about {name}",
                events.len()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many Events the daemons have tried to write, with this answer.
    fn attempts(&self, code: u16) -> Result<usize> {
        let asked = self.api.asked_by_the_daemon()?;
        let is = |event: &&Value| {
            event["objectRef"]["resource"] == "events" && event["responseStatus"]["code"] == code
        };
        Ok(asked.iter().filter(is).count())
    }

    fn wait_for_attempts(&self, code: u16, count: usize) -> Result<()> {
        let start = Instant::now();
        while self.attempts(code)? < count {
            ensure!(
                start.elapsed() < Duration::from_secs(30),
                "{} of {count} with {code}",
                self.attempts(code)?
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

#[test]
fn a_problem_that_every_node_sees_is_one_event_on_its_object() -> Result<()> {
    let stage = Stage::new()?;
    stage.service("serve", "10.13.181.116", "randm")?;
    let mut daemons = [stage.daemon(0)?, stage.daemon(1)?];
    for daemon in &mut daemons {
        daemon.wait_for_warning("`randm`")?;
    }
    let event = stage.wait_for_events("serve", 1)?.remove(0);
    // The second node was told that the Event exists.
    stage.wait_for_attempts(409, 1)?;
    stage.wait_for_events("serve", 1)?;
    let uid = stage.api.get(&format!("{SERVICES}/serve"))?["metadata"]["uid"].clone();
    let regarding =
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "serve", "uid": uid});
    ensure!(event["regarding"] == regarding, "{event:#?}");
    ensure!(event["type"] == "Warning" && event["reason"] == "InvalidAnnotation", "{event:#?}");
    ensure!(["node-1", "node-2"].iter().any(|node| event["reportingInstance"] == *node), "{event:#?}");
    let note = event["note"].as_str().unwrap();
    ensure!(
        note.contains("metadata.annotations[mcs-proxy.io/algorithm]") && note.contains("`randm`"),
        "{note}"
    );

    // Another slip is another problem; a daemon that starts anew does not write again what is written.
    let slip = json!({"metadata": {"annotations": {"mcs-proxy.io/algorithm": "rand"}}});
    stage.api.patch(&format!("{SERVICES}/serve"), &slip)?;
    stage.wait_for_events("serve", 2)?;
    stage.wait_for_attempts(409, 2)?;
    daemons[0].stop();
    daemons[0].launch()?;
    stage.wait_for_attempts(409, 3)?;
    stage.wait_for_events("serve", 2)?;
    Ok(())
}

#[test]
fn refused_endpoints_of_both_families_are_one_event_a_slice_with_their_count() -> Result<()> {
    let stage = Stage::new()?;
    stage.service("serve", "10.13.181.116", "random")?;
    stage.service("six", "fd10:13::116", "random")?;
    stage.service("other", "10.13.0.9", "random")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6", "10.13.0.9", "10.13.181.116"])?;
    stage.import("member1-six-1", "six", &["fd10:10::6", "fd10:13::116"])?;
    let mut daemons = [stage.daemon(0)?, stage.daemon(1)?];
    let event = stage.wait_for_events("member1-serve-1", 1)?.remove(0);
    ensure!(
        event["reason"] == "RejectedEndpoints" && event["regarding"]["kind"] == "EndpointSlice",
        "{event:#?}"
    );
    let note = event["note"].as_str().unwrap();
    ensure!(note.contains("a ClusterIP of this cluster, and 1 more are refused"), "{note}");
    let event = stage.wait_for_events("member1-six-1", 1)?.remove(0);
    ensure!(
        event["note"].as_str().unwrap().contains("fd10:13::116 is a ClusterIP of this cluster"),
        "{event:#?}"
    );
    stage.wait_for_attempts(409, 2)?;
    for daemon in &mut daemons {
        daemon.wait_for_services("the good endpoints alone", |rows| {
            let in_maps = |name: &str| -> Vec<String> {
                let of = rows.iter().filter(|row| row.name == name).flat_map(|row| &row.endpoints);
                of.filter(|it| it.in_maps).map(|it| it.address.to_string()).collect()
            };
            in_maps("serve") == ["10.10.0.6"]
                && in_maps("six") == ["fd10:10::6"]
                && in_maps("other").is_empty()
        })?;
    }
    Ok(())
}

#[test]
fn without_the_right_to_create_events_all_else_works_and_one_line_says_so() -> Result<()> {
    let stage = Stage::new()?;
    let mut rules = stage.api.get(ROLE)?["rules"].clone();
    let granted = rules.clone();
    rules.as_array_mut().unwrap().retain(|rule| rule["apiGroups"] != json!(["events.k8s.io"]));
    stage.api.patch(ROLE, &json!({"rules": rules}))?;
    let start = Instant::now();
    while stage.api.may("create", "events.k8s.io", "events", "")? {
        ensure!(start.elapsed() < Duration::from_secs(30), "the right stays");
    }
    stage.service("serve", "10.13.181.116", "randm")?;
    stage.service("more", "10.13.181.117", "randm")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6"])?;
    let mut daemon = stage.daemon(0)?;
    daemon.wait_for_warning("grant create on events")?;
    stage.wait_for_attempts(403, 2)?;
    daemon.wait_for_services("the endpoint", |rows| {
        rows.iter().any(|row| row.name == "serve" && row.endpoints.iter().any(|endpoint| endpoint.in_maps))
    })?;
    let lines = daemon.log().lines().filter(|line| line.contains("grant create on events")).count();
    ensure!(lines == 1, "{}", daemon.log());

    stage.api.patch(ROLE, &json!({"rules": granted}))?;
    daemon.wait_for_log("Events are written again")?;
    stage.wait_for_events("serve", 1)?;
    stage.wait_for_events("more", 1)?;
    Ok(())
}
