//! Two Services with the same endpoints: one that kube-proxy serves and one that mcs-proxy serves.

use super::{ends::Server, side::Side};
use crate::stage::{SERVICES, SLICES};
use anyhow::Result;
use mcs_proxy_tests::{
    Daemon, KubeProxy, Node, POD_PORT, Pod, ProxyMode, ServiceRow, World,
    api::ApiServer,
    karmada::{Endpoint, Port, Service, Slice},
};
use serde_json::json;
use std::net::SocketAddr;

const RANGES: &str = "10.13.0.0/16,fd10:13::/112";
const THEIRS: (&str, [&str; 2]) = ("theirs", ["10.13.0.10", "fd10:13::10"]);
const OURS: (&str, [&str; 2]) = ("ours", ["10.13.0.20", "fd10:13::20"]);
const SERVICE_PORT: u16 = 80;
/// IPv4, IPv6.
const FAMILIES: [usize; 2] = [0, 1];

/// One on the client's node and two on another.
pub(super) const PODS: usize = 3;
const ADDRESSES: [[&str; 2]; PODS] =
    [["10.12.0.6", "fd10:12::6"], ["10.10.0.6", "fd10:10::6"], ["10.10.0.7", "fd10:10::7"]];

/// Which pods take new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) ready: [bool; PODS],
    /// The others are listed as unready, or else not listed.
    pub(super) unready_are_listed: bool,
}

pub(super) const ALL: Endpoints = Endpoints { ready: [true; PODS], unready_are_listed: true };

/// Fields are dropped in order.
pub(super) struct Stage {
    daemon: Daemon,
    proxy: KubeProxy,
    api: ApiServer,
    pub(super) servers: Vec<Server>,
    endpoints: Endpoints,
    /// Conversations so far: each has ports of its own.
    begun: u16,
    client: Pod,
    _pods: Vec<Pod>,
    _node: Node,
    _world: World,
}

impl Stage {
    pub(super) fn new(mode: ProxyMode) -> Result<Self> {
        let mut world = World::new()?;
        let remote = world.add_node("member1", "member1-node-1", &["10.10.0.0/16", "fd10:10::/64"])?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16", "fd10:12::/64"])?;
        let mut pods = Vec::new();
        for (number, addresses) in ADDRESSES.iter().enumerate() {
            let host = if number == 0 { &node } else { &remote };
            pods.push(world.add_pod(host, &format!("serve-{number}"), addresses)?);
        }
        let servers = pods.iter().map(Server::start).collect::<Result<_>>()?;
        let client = world.add_pod(&node, "client", &["10.12.0.9", "fd10:12::9"])?;
        // kube-proxy has the kernel answer where there is no endpoint, and that would answer six times and then once a second.
        node.namespace.sysctl("net/ipv4/icmp_ratelimit", "0")?;
        node.namespace.sysctl("net/ipv6/icmp/ratelimit", "0")?;

        let api = ApiServer::start(&world, RANGES)?;
        api.grant()?;
        api.enter_node(&node)?;
        for (name, vips) in [THEIRS, OURS] {
            let service = Service::new(name, "member2", &vips, &ports(SERVICE_PORT))?;
            let service = if name == OURS.0 { service.annotated("enabled", "true") } else { service };
            api.create(SERVICES, &service.yaml())?;
            for family in FAMILIES {
                let pods = ADDRESSES
                    .iter()
                    .map(|addresses| Endpoint::new(addresses[family], "member1-node-1", "serve"))
                    .collect::<Result<Vec<_>>>()?;
                let slice = Slice::new(&slice_name(name, family), name, "member2", "member1", &pods);
                api.create(SLICES, &slice.with_ports(&ports(POD_PORT)).yaml())?;
            }
        }
        let proxy = KubeProxy::start(&api, &node, mode)?;
        let kubeconfig = api.daemon_kubeconfig().display().to_string();
        let daemon = Daemon::start_with(&node, &["--source", "kubernetes", "--kubeconfig", &kubeconfig])?;
        let mut stage = Self {
            daemon,
            proxy,
            api,
            servers,
            endpoints: ALL,
            begun: 0,
            client,
            _pods: pods,
            _node: node,
            _world: world,
        };
        stage.wait()?;
        Ok(stage)
    }

    /// Changes the endpoints of both Services, and waits until both proxies have them.
    pub(super) fn set_endpoints(&mut self, endpoints: &Endpoints) -> Result<()> {
        if self.endpoints == *endpoints {
            return Ok(());
        }
        self.endpoints = *endpoints;
        for (name, _) in [THEIRS, OURS] {
            for family in FAMILIES {
                let list: Vec<_> = (0..PODS)
                    .filter(|&pod| endpoints.ready[pod] || endpoints.unready_are_listed)
                    .map(|pod| {
                        let ready = endpoints.ready[pod];
                        let conditions = json!({ "ready": ready, "serving": ready, "terminating": false });
                        json!({ "addresses": [ADDRESSES[pod][family]], "conditions": conditions })
                    })
                    .collect();
                let path = format!("{SLICES}/{}", slice_name(name, family));
                self.api.patch(&path, &json!({ "endpoints": list }))?;
            }
        }
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let ready: Vec<usize> = (0..PODS).filter(|&pod| self.endpoints.ready[pod]).collect();
        let addresses: Vec<SocketAddr> = ready
            .iter()
            .flat_map(|&pod| ADDRESSES[pod])
            .map(|address| Ok(SocketAddr::new(address.parse()?, POD_PORT)))
            .collect::<Result<_>>()?;
        for port in ["theirs:http", "theirs:echo"] {
            self.proxy.wait_for_endpoints(port, &addresses)?;
        }
        self.daemon.wait_for_services(&format!("endpoints {addresses:?}"), |rows| {
            let in_maps = |row: &ServiceRow| {
                let mut endpoints = row.endpoints.iter().filter(|endpoint| endpoint.in_maps);
                (
                    endpoints.clone().count(),
                    endpoints.all(|endpoint| addresses.iter().any(|ready| ready.ip() == endpoint.address)),
                )
            };
            rows.len() == 4 && rows.iter().all(|row| in_maps(row) == (ready.len(), true))
        })
    }

    /// Whether a pod takes new connections.
    pub(super) fn is_endpoint(&self, pod: usize) -> bool {
        self.endpoints.ready[pod]
    }

    /// A client of each Service, kube-proxy's first, from ports that nobody has used lately.
    pub(super) fn sides(&mut self, v6: bool) -> [Side; 2] {
        let port = 20_000 + self.begun % 2_500 * 16;
        self.begun += 1;
        [(THEIRS, port), (OURS, port + 8)].map(|((_, vips), port)| {
            let family = usize::from(v6);
            let address = self.client.addresses[family];
            let vip = SocketAddr::new(vips[family].parse().unwrap(), SERVICE_PORT);
            Side::new(self.client.namespace.clone(), SocketAddr::new(address, port), vip)
        })
    }

    /// How many flows of ours there were, to our Service and to kube-proxy's.
    pub(super) fn flows(&self) -> Result<(u64, u64)> {
        let rows = self.daemon.services()?;
        let of = |name: &str| rows.iter().filter(|row| row.name == name).map(|row| row.flows).sum();
        Ok((of(OURS.0), of(THEIRS.0)))
    }
}

fn slice_name(service: &str, family: usize) -> String {
    format!("member1-{service}{}", ["", "-v6"][family])
}

fn ports(port: u16) -> [Port; 2] {
    [Port::new("http", "TCP", port), Port::new("echo", "UDP", port)]
}
