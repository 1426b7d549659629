//! Clusters made of network namespaces: nodes joined by a bridge, pods behind veths, pod networks routed flat.
//!
//! ```text
//!   fabric:   br0 172.18.0.254 ── node1 ── node2 ── …        (one /24 and one /64, no address translation)
//!   a node:   eth0 172.18.0.N, a route to every other node's pod range by that node's address
//!   a pod:    eth0 with /32 and /128 addresses, everything by way of the node, as Calico and ptp do it
//! ```
//!
//! Every node routes by itself, and the veths keep their offloads, so packets travel as they do on real nodes:
//! with partial checksums and larger than the MTU.

use crate::{
    cleanup,
    namespace::{Namespace, Process},
    programs,
};
use anyhow::{Context, Result};
use ipnet::IpNet;
use std::{
    cell::Cell,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// The port that pods serve on.
pub const POD_PORT: u16 = 8080;
/// The fabric's own address: where a test puts what every node must reach.
pub const FABRIC: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 254);
const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 0xfe);
/// A pod's gateway: an address that nobody has and the node answers for.
const GATEWAY: &str = "169.254.1.1";
const GATEWAY_V6: &str = "fe80::1";

/// Everything that one test or demo sets up. Dropping it removes everything.
#[derive(Debug)]
pub struct World {
    name: String,
    folder: PathBuf,
    fabric: Namespace,
    nodes: Vec<Node>,
    kept: Cell<bool>,
    lifetime: Lifetime,
}

/// Whether what is set up may outlive this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Processes die with us, even if we are killed.
    Ours,
    /// [`World::keep`] may be called.
    MayBeKept,
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    pub cluster: String,
    pub name: String,
    pub namespace: Namespace,
    pub address: Ipv4Addr,
    pub address_v6: Ipv6Addr,
    pub pod_ranges: Vec<IpNet>,
}

/// A pod: a network namespace with an interface `eth0`.
#[derive(Debug)]
pub struct Pod {
    pub cluster: String,
    pub node: String,
    pub name: String,
    pub namespace: Namespace,
    pub addresses: Vec<IpAddr>,
    /// The name of the other end of its veth, in the node's namespace.
    pub host_interface: String,
    server: Option<Process>,
}

impl World {
    /// # Errors
    /// The rights are missing (this takes root), or a program is.
    pub fn new() -> Result<Self> {
        Self::with_lifetime(Lifetime::Ours)
    }

    /// # Errors
    /// As [`World::new`].
    pub fn with_lifetime(lifetime: Lifetime) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        cleanup::start()?;
        let name = format!("{}-{}", cleanup::run_name(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = cleanup::run_folder().join(&name);
        fs::create_dir_all(&folder).context("a folder in /run (are you root?)")?;
        let fabric = Namespace::create(&format!("{name}-fabric"), &folder, lifetime == Lifetime::Ours)?;
        let world = Self { name, folder, fabric, nodes: Vec::new(), kept: Cell::new(false), lifetime };
        let fabric = &world.fabric;
        fabric.ip("link add br0 type bridge")?;
        fabric.ip(&format!("address add {FABRIC}/24 dev br0"))?;
        fabric.ip(&format!("address add {FABRIC_V6}/64 dev br0 nodad"))?;
        fabric.ip("link set br0 up")?;
        Ok(world)
    }

    /// The name that all names on the machine begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for files of this world.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    /// Where the nodes meet.
    pub fn fabric(&self) -> &Namespace {
        &self.fabric
    }

    /// Adds a node whose pods have addresses in the given ranges, reachable from all other nodes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_node(&mut self, cluster: &str, name: &str, pod_ranges: &[&str]) -> Result<Node> {
        let number = u8::try_from(self.nodes.len() + 1).context("too many nodes")?;
        let pod_ranges = pod_ranges.iter().map(|range| range.parse()).collect::<Result<Vec<IpNet>, _>>()?;
        let namespace = self.namespace(name)?;
        let address = Ipv4Addr::new(172, 18, 0, number);
        let address_v6 = Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, number.into());

        namespace.sysctl("net/ipv4/ip_forward", "1")?;
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let port = format!("node{number}");
        namespace.ip(&format!("link add eth0 type veth peer name {port} netns {}", self.fabric.name()))?;
        self.fabric.ip(&format!("link set {port} master br0 up"))?;
        namespace.ip(&format!("address add {address}/24 dev eth0"))?;
        namespace.ip(&format!("address add {address_v6}/64 dev eth0 nodad"))?;
        namespace.ip("link set eth0 up")?;
        namespace.ip(&format!("route add default via {FABRIC}"))?;
        namespace.ip(&format!("-6 route add default via {FABRIC_V6}"))?;

        let node = Node {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            namespace,
            address,
            address_v6,
            pod_ranges,
        };
        self.fabric_routes(&node)?;
        for other in &self.nodes {
            other.route_to(&node)?;
            node.route_to(other)?;
        }
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// The fabric's own processes reach pods too.
    fn fabric_routes(&self, node: &Node) -> Result<()> {
        node.pod_ranges.iter().try_for_each(|&range| {
            self.fabric.ip(&format!("route add {range} via {}", node.gateway(range))).map(drop)
        })
    }

    /// Adds a pod to a node: nothing runs in it yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_pod(&self, node: &Node, name: &str, addresses: &[&str]) -> Result<Pod> {
        let addresses =
            addresses.iter().map(|address| address.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
        let namespace = self.namespace(&format!("{}-{name}", node.name))?;
        let host_interface = host_interface(name);
        let (cluster, node_name) = (node.cluster.clone(), node.name.clone());
        let pod = Pod {
            cluster,
            node: node_name,
            name: name.to_owned(),
            namespace,
            addresses,
            host_interface,
            server: None,
        };
        pod.wire(node, "")?;
        Ok(pod)
    }

    /// Adds a pod that answers who it is, over HTTP and UDP, and waits until it does.
    ///
    /// # Errors
    /// The kernel's, or the program's.
    pub fn add_serving_pod(&self, node: &Node, name: &str, addresses: &[&str]) -> Result<Pod> {
        let mut pod = self.add_pod(node, name, addresses)?;
        pod.serve()?;
        Ok(pod)
    }

    fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(&format!("{}-{name}", self.name), &self.folder, self.lifetime == Lifetime::Ours)
    }

    /// Leaves everything standing after our process ends, for [`tear_down_kept`](crate::tear_down_kept).
    ///
    /// # Errors
    /// The note about it cannot be written.
    pub fn keep(&self) -> Result<()> {
        assert!(self.lifetime == Lifetime::MayBeKept, "its processes would not outlive ours");
        self.kept.set(true);
        cleanup::keep()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.kept.get() {
            cleanup::remove_world(&self.name, &self.folder);
        }
    }
}

impl Node {
    fn gateway(&self, range: IpNet) -> IpAddr {
        match range {
            IpNet::V4(_) => self.address.into(),
            IpNet::V6(_) => self.address_v6.into(),
        }
    }

    fn route_to(&self, other: &Self) -> Result<()> {
        other.pod_ranges.iter().try_for_each(|&range| {
            // Nodes of one cluster may share its range.
            if self.pod_ranges.contains(&range) {
                return Ok(());
            }
            self.namespace.ip(&format!("route add {range} via {}", other.gateway(range))).map(drop)
        })
    }
}

impl Pod {
    /// Takes its veth away, and gives it another of the same name: under the same index, if asked.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rewire(&self, node: &Node, same_index: bool) -> Result<()> {
        let name = &self.host_interface;
        let shown = node.namespace.ip(&format!("-o link show dev {name}"))?;
        let (index, _) = shown.split_once(':').with_context(|| shown.clone())?;
        node.namespace.ip(&format!("link del {name}"))?;
        self.wire(node, &if same_index { format!("index {index}") } else { String::new() })
    }

    fn wire(&self, node: &Node, index: &str) -> Result<()> {
        let Self { namespace, host_interface, addresses, .. } = self;
        let host = &node.namespace;
        let peer = format!("peer name eth0 netns {}", namespace.name());
        host.ip(&format!("link add {host_interface} {index} type veth {peer}"))?;
        host.sysctl(&format!("net/ipv4/conf/{host_interface}/proxy_arp"), "1")?;
        // The kernel would wait for up to a second before it answers for another.
        host.sysctl(&format!("net/ipv4/neigh/{host_interface}/proxy_delay"), "0")?;
        host.ip(&format!("address add {GATEWAY_V6}/64 dev {host_interface} nodad"))?;
        host.ip(&format!("link set {host_interface} up"))?;

        for address in addresses {
            let length = if address.is_ipv4() { 32 } else { 128 };
            let nodad = if address.is_ipv4() { "" } else { "nodad" };
            namespace.ip(&format!("address add {address}/{length} dev eth0 {nodad}"))?;
            host.ip(&format!("route add {address}/{length} dev {host_interface}"))?;
        }
        namespace.ip("link set eth0 up")?;
        namespace.ip(&format!("route add {GATEWAY} dev eth0 scope link"))?;
        namespace.ip(&format!("route add default via {GATEWAY} dev eth0"))?;
        namespace.ip(&format!("-6 route add default via {GATEWAY_V6} dev eth0"))?;
        Ok(())
    }

    /// Starts the program that answers.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve(&mut self) -> Result<()> {
        self.serve_on(POD_PORT)
    }

    /// As [`serve`](Self::serve), on another port.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve_on(&mut self, port: u16) -> Result<()> {
        let port = port.to_string();
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let mut arguments = vec![self.cluster.as_str(), &self.node, &self.name, &port];
        arguments.extend(addresses.iter().map(String::as_str));
        let name = self.namespace.name().to_owned();
        let mut server = self.namespace.spawn(&name, &programs::hello_pod()?, &arguments)?;
        server.first_line()?;
        self.server = Some(server);
        Ok(())
    }

    /// Its first address of the family.
    pub fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == v6)
    }

    /// Lets its program live on after us, in a world that is kept.
    pub fn leave(self) {
        if let Some(server) = self.server {
            server.leave();
        }
    }
}

/// As CNI plugins name them; interface names have at most 15 characters.
fn host_interface(pod: &str) -> String {
    let tail: String = pod.chars().rev().take(11).collect();
    format!("veth{}", tail.chars().rev().collect::<String>())
}
