use super::{PATIENCE, Parts, end_of, pause};
use crate::{Namespace, Process, World, api, etcd};
use anyhow::{Result, bail};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

const CONTROLLERS: &str = "daemonset-controller,deployment-controller,replicaset-controller,job-controller,\
    endpointslice-controller,endpointslice-mirroring-controller,node-lifecycle-controller,taint-eviction-controller,\
    garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    root-ca-certificate-publisher-controller,pod-garbage-collector-controller";

/// Everything that is not on a node.
#[derive(Debug)]
pub(super) struct ControlPlane {
    /// Dropped in this order: the rest depends on etcd.
    _scheduler: Process,
    _controllers: Process,
    _server: Process,
    _etcd: Process,
    namespace: Namespace,
    folder: PathBuf,
}

impl ControlPlane {
    pub(super) fn start(world: &World, parts: &Parts, nodes: &[String]) -> Result<Self> {
        let folder = world.folder("control")?;
        let namespace = world.fabric().clone();
        let mut tokens = format!("{},admin,admin,system:masters\n", api::TOKEN);
        for node in nodes {
            writeln!(tokens, "{node},system:node:{node},{node},system:nodes")?;
            fs::write(node_kubeconfig(&folder, node), api::kubeconfig(node))?;
        }
        fs::write(folder.join("tokens.csv"), tokens)?;
        fs::write(folder.join("kubeconfig"), api::kubeconfig(api::TOKEN))?;
        api::make_keys(&folder)?;
        let etcd = etcd::start(&namespace, &folder)?;
        let mut server = start_server(&namespace, parts, &folder)?;
        let start = Instant::now();
        while api::call(&namespace, "GET", "/readyz", None).is_err() {
            if !server.is_running()? || start.elapsed() > PATIENCE {
                bail!("kube-apiserver is not ready: {}", end_of(server.log()));
            }
            pause();
        }
        let kubeconfig = folder.join("kubeconfig").display().to_string();
        let common = ["--kubeconfig", &kubeconfig, "--leader-elect=false", "--bind-address", "127.0.0.1"];
        let root = format!("--root-ca-file={}", folder.join("certificates/apiserver.crt").display());
        let controllers = format!("--controllers={CONTROLLERS}");
        let quick = ["--node-monitor-period=1s", "--node-monitor-grace-period=8s"];
        let controllers = namespace.spawn(
            "kube-controller-manager",
            &parts.program("kube-controller-manager")?,
            &[&common[..], &quick, &[&root, &controllers]].concat(),
        )?;
        let scheduler = namespace.spawn("kube-scheduler", &parts.program("kube-scheduler")?, &common)?;
        Ok(Self {
            _scheduler: scheduler,
            _controllers: controllers,
            _server: server,
            _etcd: etcd,
            namespace,
            folder,
        })
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    pub(super) fn call(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Result<String> {
        api::call(&self.namespace, method, path, body)
    }
}

/// The kubelet's, which may what the node authorizer lets it.
pub(super) fn node_kubeconfig(control: &Path, node: &str) -> PathBuf {
    control.join(format!("{node}.kubeconfig"))
}

fn start_server(namespace: &Namespace, parts: &Parts, folder: &Path) -> Result<Process> {
    let mut flags = api::server_flags(folder, "Node,RBAC", "10.13.0.0/16");
    flags.extend(
        [
            "--allow-privileged",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        .map(str::to_owned),
    );
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    namespace.spawn("kube-apiserver", &parts.program("kube-apiserver")?, &flags)
}
