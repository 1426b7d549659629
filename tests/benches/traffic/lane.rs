//! One arm: a node with a client, a server, and what is to translate between them.

use crate::{
    arm::Arm,
    objects::{self, CLIENT, ENDPOINTS, POD_RANGE},
    plan::Size,
    samples::{Measure, Slice, Target},
    worker::{Command, Worker},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Cgroup, Daemon, KubeProxy, Node, Pod, ProxyMode, World,
    api::ApiServer,
    bpf::{Idle, Way},
};
use std::{net::SocketAddr, time::Duration};

/// kube-proxy takes minutes for tens of thousands of Services.
const PATIENCE: Duration = Duration::from_secs(900);

/// Fields are dropped in order: a cgroup must be empty when it goes.
pub(crate) struct Lane {
    pub(crate) arm: Arm,
    client: Worker,
    _server: Worker,
    proxy: Proxy,
    /// What `First`, `Middle` and `Last` are.
    services: [SocketAddr; 3],
    /// Client and server.
    pods: [Pod; 2],
    cgroup: Cgroup,
}

enum Proxy {
    None,
    /// Held for as long as it is measured.
    Empty(#[expect(dead_code, reason = "holds the programs there")] Vec<Idle>),
    KubeProxy(KubeProxy),
    Ours(Box<Daemon>),
}

impl Lane {
    pub(crate) fn new(world: &mut World, api: &ApiServer, arm: Arm, size: &Size) -> Result<Self> {
        // No routes lead here from other nodes, which have the same addresses.
        let mut node = world.add_node("bench", arm.name(), &[])?;
        node.pod_ranges = vec![POD_RANGE.parse()?];
        let own: Vec<String> = (0..=ENDPOINTS).map(|number| objects::pod(number).ip().to_string()).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let server = world.add_pod(&node, "server", &own)?;
        let client = world.add_pod(&node, "client", &[&CLIENT.to_string()])?;
        // A port may be used again for the same address a second after its last connection.
        client.namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        let cgroup = Cgroup::new()?;

        let proxy = start(api, &node, arm, [&client, &server], &cgroup)?;
        let services = services(&proxy, arm, size)?;
        let server_worker = Worker::serve(&server.namespace, cgroup.path())?;
        let client_worker = Worker::call(&client.namespace, cgroup.path())?;
        let pods = [client, server];
        Ok(Self { arm, client: client_worker, _server: server_worker, proxy, services, pods, cgroup })
    }

    /// One slice.
    pub(crate) fn measure(&mut self, measure: Measure, target: Target, time: Duration) -> Result<Slice> {
        let to = self.address(target);
        let command = Command { measure, to, millis: time.as_millis() as u64, ports: ports(target) };
        self.client.ask(&command).with_context(|| format!("{measure:?} of {} to {to}", self.arm))
    }

    /// What the client calls.
    pub(crate) fn address(&self, target: Target) -> SocketAddr {
        match (self.arm, target) {
            (_, Target::Bystander) => objects::pod(ENDPOINTS),
            (Arm::Direct | Arm::Empty, _) => objects::pod(0),
            (_, Target::First) => self.services[0],
            (_, Target::Middle) => self.services[1],
            (_, Target::Last) => self.services[2],
        }
    }

    pub(crate) const fn client(&self) -> &Pod {
        &self.pods[0]
    }

    pub(crate) const fn server(&self) -> &Pod {
        &self.pods[1]
    }

    /// The client's and the server's.
    pub(crate) const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Stops the proxy, or lets it go on.
    pub(crate) fn pause(&self, paused: bool) -> Result<()> {
        match &self.proxy {
            Proxy::None | Proxy::Empty(_) => Ok(()),
            Proxy::KubeProxy(proxy) => proxy.pause(paused),
            Proxy::Ours(daemon) => daemon.pause(paused),
        }
    }

    /// That connections went the way that the arm is named after.
    pub(crate) fn check(&self) -> Result<()> {
        let Proxy::Ours(daemon) = &self.proxy else { return Ok(()) };
        let flows = daemon.connections()?;
        let by_packet = matches!(self.arm, Arm::Packet | Arm::Redirect);
        ensure!((flows > 0) == by_packet, "{}: {flows} flows in the maps of the packet path", self.arm);
        Ok(())
    }
}

fn start(api: &ApiServer, node: &Node, arm: Arm, pods: [&Pod; 2], cgroup: &Cgroup) -> Result<Proxy> {
    let (kubeconfig, cgroup) = (api.daemon_kubeconfig(), cgroup.path().display().to_string());
    let ours = |socket_path: &[&str]| {
        let kubeconfig = kubeconfig.display().to_string();
        let all = [
            "--source",
            "kubernetes",
            "--kubeconfig",
            &kubeconfig,
            "--all-services",
            "--max-slots",
            "1048576",
        ];
        Daemon::start_with(node, &[&all, socket_path].concat()).map(|daemon| Proxy::Ours(Box::new(daemon)))
    };
    let theirs = |mode| -> Result<Proxy> {
        api.enter_node(node)?;
        KubeProxy::launch(api, node, mode).map(Proxy::KubeProxy)
    };
    match arm {
        Arm::Direct => Ok(Proxy::None),
        Arm::Empty => {
            let hooks = pods.into_iter().flat_map(|pod| [Way::Ingress, Way::Egress].map(|way| (pod, way)));
            let idle = hooks.map(|(pod, way)| Idle::attach(&node.namespace, &pod.host_interface, way));
            idle.collect::<Result<_>>().map(Proxy::Empty)
        }
        Arm::KubeProxyNftables => theirs(ProxyMode::Nftables),
        Arm::KubeProxyIptables => theirs(ProxyMode::Iptables),
        Arm::Packet => ours(&["--socket-path", "off"]),
        Arm::Redirect => ours(&["--socket-path", "off", "--redirect"]),
        Arm::Socket => ours(&["--socket-path", "all", "--cgroup", &cgroup]),
    }
}

/// The first, the middle one and the last, once all are programmed.
fn services(proxy: &Proxy, arm: Arm, size: &Size) -> Result<[SocketAddr; 3]> {
    let mut all: Vec<SocketAddr> = (0..size.services).map(objects::vip).collect();
    if let Proxy::KubeProxy(proxy) = proxy {
        let programmed = proxy.wait_for_vips(&all, PATIENCE)?;
        if arm == Arm::KubeProxyIptables {
            all = programmed;
        }
    }
    let middle = all.get(all.len() / 2).copied();
    let places = all.first().copied().zip(middle).zip(all.last().copied());
    places.map(|((first, middle), last)| [first, middle, last]).context("no Service")
}

/// Each target's connections have ports of their own: two Services that lead to one pod must not compete for a tuple.
const fn ports(target: Target) -> (u16, u16) {
    match target {
        Target::First => (16_384, 28_671),
        Target::Middle => (28_672, 40_959),
        Target::Last => (40_960, 53_247),
        Target::Bystander => (53_248, 65_535),
    }
}
