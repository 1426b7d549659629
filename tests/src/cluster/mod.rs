//! A real Kubernetes cluster on one machine: etcd, API server, controllers and scheduler in the fabric's network
//! namespace; every node in namespaces of its own, with a real kubelet, containerd, runc and CNI.
//!
//! ```text
//!   fabric:  172.18.0.254   etcd, kube-apiserver (:6443), kube-controller-manager, kube-scheduler
//!   nodeN:   172.18.0.N     kubelet, containerd, pods in 10.244.N.0/24; kube-proxy if asked for
//!   Services 10.13.0.0/16, their DNS, if asked for, at 10.13.0.10
//! ```

mod cgroups;
mod control;
mod dns;
mod init;
mod kubectl;
mod node;
mod parts;

pub(crate) use cgroups::remove as remove_cgroups;
pub use init::first_process;
pub use node::ClusterNode;
pub use parts::{PARTS, Parts};

use crate::{FABRIC, KubeProxy, Lifetime, Namespace, ProxyMode, World, cleanup};
use anyhow::{Context, Result, bail, ensure};
use control::ControlPlane;
use serde_json::Value;
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// For what takes seconds on a machine that is not busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    pub nodes: u8,
    pub cni: Cni,
    /// `None`: nothing serves Services but what is installed.
    pub kube_proxy: Option<ProxyMode>,
    /// CoreDNS, as a pod; without a kube-proxy its Service is opted in to mcs-proxy.
    pub dns: bool,
    pub lifetime: Lifetime,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 2, cni: Cni::Bridge, kube_proxy: None, dns: false, lifetime: Lifetime::Ours }
    }
}

/// How pods are wired, by the reference plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cni {
    /// All pods of a node on one bridge.
    Bridge,
    /// Every pod on a link of its own, routed.
    Ptp,
}

/// A cluster that runs. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order.
    proxies: Vec<KubeProxy>,
    nodes: Vec<ClusterNode>,
    control: ControlPlane,
    parts: Parts,
    world: World,
}

impl Cluster {
    /// Where a node has its part of cgroup2.
    pub const CGROUP: &str = "/run/cgroup2";
    /// Where nodes and pods reach the API server past all Services.
    pub const API_SERVER: (Ipv4Addr, u16) = (FABRIC, crate::api::PORT);

    /// Starts everything and waits until all nodes are ready.
    ///
    /// # Errors
    /// A part is missing, or does not get there: the error says which, and what its log ends with.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let parts = Parts::find()?;
        let mut world = World::with_lifetime(options.lifetime)?;
        let names: Vec<_> = (1..=options.nodes).map(|number| format!("node{number}")).collect();
        let control = ControlPlane::start(&world, &parts, &names)?;
        let mut nodes = Vec::new();
        for (number, name) in (1..).zip(&names) {
            let node = world.add_node("cluster", name, &[&format!("10.244.{number}.0/24")])?;
            nodes.push(ClusterNode::new(&world, node, &parts, options)?);
        }
        let mut cluster = Self { proxies: Vec::new(), nodes, control, parts, world };
        cluster.nodes.iter_mut().try_for_each(ClusterNode::start)?;
        cluster.wait_for_nodes()?;
        if let Some(mode) = options.kube_proxy {
            let kubeconfig = cluster.control.kubeconfig();
            for node in &cluster.nodes {
                cluster.proxies.push(KubeProxy::beside(&kubeconfig, &node.node, mode)?);
            }
        }
        if options.dns {
            dns::install(&cluster, options.kube_proxy.is_none())?;
        }
        Ok(cluster)
    }

    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    pub fn node(&mut self, index: usize) -> &mut ClusterNode {
        &mut self.nodes[index]
    }

    /// Every node's kube-proxy, if there are any.
    pub fn kube_proxies(&self) -> &[KubeProxy] {
        &self.proxies
    }

    /// Where the control plane is: what every node and pod reaches.
    pub fn fabric(&self) -> &Namespace {
        self.world.fabric()
    }

    /// For an administrator, in the fabric's network namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control.kubeconfig()
    }

    /// One of Kubernetes' programs, or helm.
    ///
    /// # Errors
    /// It is not there.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.parts.program(name)
    }

    /// Waits until every node is ready, as the API server knows it.
    ///
    /// # Errors
    /// One does not get there.
    pub fn wait_for_nodes(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let nodes = self.get("/api/v1/nodes")?;
            let ready = nodes["items"].as_array().into_iter().flatten().filter(|node| is_ready(node));
            if ready.count() == self.nodes.len() {
                return Ok(());
            }
            for node in &mut self.nodes {
                node.check()?;
            }
            if start.elapsed() > PATIENCE {
                let logs: String = self.nodes.iter().map(ClusterNode::end_of_logs).collect();
                bail!("not all nodes are ready after {PATIENCE:?}: {nodes}\n{logs}");
            }
            pause();
        }
    }

    /// An object, by its path in the API.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, path: &str) -> Result<Value> {
        let text = self.control.call("GET", path, None)?;
        serde_json::from_str(&text).with_context(|| path.to_owned())
    }

    /// Waits until an object, by its path, is as wanted.
    ///
    /// # Errors
    /// It does not get there; the error has the object.
    pub fn wait_for(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let start = Instant::now();
        loop {
            let object = self.get(path);
            if let Ok(object) = &object
                && wanted(object)
            {
                return Ok(object.clone());
            }
            if start.elapsed() > PATIENCE {
                bail!("{what}: not so after {PATIENCE:?}: {}", object?);
            }
            pause();
        }
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// It does not get there, or cannot be told.
    pub fn until(&self, what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !so()? {
            ensure!(start.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}");
            pause();
        }
        Ok(())
    }

    /// Ends a process of a pod's as a crash would.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self, process: u32) -> Result<()> {
        crate::sys::kill(process, libc::SIGKILL).with_context(|| format!("process {process}"))
    }

    /// The network namespace of a pod that runs.
    ///
    /// # Errors
    /// There is no such pod, or it has no process yet.
    pub fn enter(&self, namespace: &str, pod: &str) -> Result<Namespace> {
        let process = self.processes_of(namespace, pod)?[0];
        Namespace::of_process(
            &format!("{}-pod-{pod}", self.world.name()),
            &self.world.folder("pods")?,
            process,
        )
    }

    /// The ids, as this machine sees them, of a pod's processes; the first is that which holds its namespaces.
    ///
    /// # Errors
    /// There is no such pod, or it has none.
    pub fn processes_of(&self, namespace: &str, pod: &str) -> Result<Vec<u32>> {
        let object = self.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))?;
        let (uid, node) = (&object["metadata"]["uid"], &object["spec"]["nodeName"]);
        let node =
            self.nodes.iter().find(|other| node == other.name()).with_context(|| object.to_string())?;
        let found = node.processes_of(uid.as_str().with_context(|| object.to_string())?)?;
        ensure!(!found.is_empty(), "{namespace}/{pod} has no process on {}", node.name());
        Ok(found)
    }

    /// Leaves everything running after our process ends, for [`tear_down_kept`](crate::tear_down_kept).
    ///
    /// # Errors
    /// The note about it cannot be written.
    pub fn keep(self) -> Result<()> {
        self.world.keep()?;
        std::mem::forget(self);
        Ok(())
    }

    /// The folder of this cluster's files.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        self.world.folder(name)
    }
}

/// The API server answers within a few milliseconds; each question is a process here.
pub(crate) fn pause() {
    cleanup::stop_if_interrupted();
    thread::sleep(Duration::from_millis(100));
}

/// Whether a node's or pod's condition `Ready` is true.
pub fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What a log ends with, for an error.
pub(crate) fn end_of(log: &Path) -> String {
    const LINES: usize = 12;
    let text = std::fs::read(log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    format!("{}:\n{}\n", log.display(), lines[lines.len().saturating_sub(LINES)..].join("\n"))
}
