//! A cluster of two nodes with a real API server, and the Events there.

use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, FABRIC, Node, World,
    api::ApiServer,
    karmada::{Endpoint, Port, Service, Slice},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// Of the API server itself.
pub(crate) const API_PORT: u16 = 6443;
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

pub(crate) struct Stage {
    pub(crate) api: ApiServer,
    pub(crate) nodes: [Node; 2],
    pub(crate) world: World,
}

impl Stage {
    /// Two nodes of member2 and an API server for both families.
    pub(crate) fn new() -> Result<Self> {
        Self::with_flags(&[])
    }

    /// The same, with more flags for the API server.
    pub(crate) fn with_flags(more: &[&str]) -> Result<Self> {
        let mut world = World::new()?;
        let nodes = [
            world.add_node("member2", "node-1", &["10.12.1.0/24", "fd10:12:1::/64"])?,
            world.add_node("member2", "node-2", &["10.12.2.0/24", "fd10:12:2::/64"])?,
        ];
        let api = ApiServer::start_with(&world, "10.13.0.0/16,fd10:13::/112", more)?;
        api.grant()?;
        for (node, addresses) in
            [("node-1", ["192.0.2.1", "2001:db8::1"]), ("node-2", ["192.0.2.2", "2001:db8::2"])]
        {
            api.create(
                "/api/v1/nodes",
                &format!("{{apiVersion: v1, kind: Node, metadata: {{name: {node}}}}}"),
            )?;
            let addresses = addresses.map(|address| json!({"type": "InternalIP", "address": address}));
            api.patch(&format!("/api/v1/nodes/{node}/status"), &json!({"status": {"addresses": addresses}}))?;
        }
        Ok(Self { api, nodes, world })
    }

    pub(crate) fn daemon(&self, node: usize) -> Result<Daemon> {
        self.daemon_with(node, &[])
    }

    /// With more arguments.
    pub(crate) fn daemon_with(&self, node: usize, more: &[&str]) -> Result<Daemon> {
        let kubeconfig = self.api.daemon_kubeconfig().display().to_string();
        let arguments = ["--source", "kubernetes", "--kubeconfig", &kubeconfig, "--event-jitter", "1s"];
        Daemon::start_with(&self.nodes[node], &[&arguments[..], more].concat())
    }

    /// A daemon on the first node that reaches the API server by another address of its own.
    pub(crate) fn daemon_by(&self, server: &str) -> Result<Daemon> {
        let direct = fs::read_to_string(self.api.daemon_kubeconfig())?;
        let kubeconfig = self.world.folder("by")?.join("kubeconfig");
        fs::write(&kubeconfig, direct.replace(&format!("https://{FABRIC}:{API_PORT}"), server))?;
        let kubeconfig = kubeconfig.display().to_string();
        let mut daemon =
            Daemon::start_with(&self.nodes[0], &["--source", "kubernetes", "--kubeconfig", &kubeconfig])?;
        daemon.expect_outages();
        Ok(daemon)
    }

    pub(crate) fn service(&self, name: &str, ip: &str, algorithm: &str) -> Result<()> {
        let service = Service::new(name, "member2", &[ip], &[Port::new("", "TCP", 80)])?;
        let service = service.annotated("enabled", "true").annotated("algorithm", algorithm);
        self.api.create(SERVICES, &service.yaml())
    }

    pub(crate) fn import(&self, name: &str, service: &str, addresses: &[&str]) -> Result<()> {
        self.api.create(SLICES, &Self::slice(name, service, addresses)?)
    }

    /// As Karmada brings it from member1.
    pub(crate) fn slice(name: &str, service: &str, addresses: &[&str]) -> Result<String> {
        let pods = addresses.iter().map(|address| Endpoint::new(address, "node", "pod"));
        let pods = pods.collect::<Result<Vec<_>>>()?;
        Ok(Slice::new(name, service, "member2", "member1", &pods).yaml())
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

    pub(crate) fn wait_for_events(&self, name: &str, count: usize) -> Result<Vec<Value>> {
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

    pub(crate) fn wait_for_attempts(&self, code: u16, count: usize) -> Result<()> {
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
