//! A node of member2 with a client and a backend, whose Service `serve` the daemon has programmed.

use anyhow::{Context, Result, ensure};
use mcs_proxy::dataplane::sys::{Access, TcxHook, object_get, tcx_query};
use mcs_proxy_tests::{
    Daemon, Node, POD_PORT, Pod, World,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
    programs,
};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Output,
};

pub(crate) const VIP: &str = "10.13.181.116";
pub(crate) const BACKEND: &str = "10.12.0.6";

/// Fields are dropped in order.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) client: Pod,
    pub(crate) _backend: Pod,
    pub(crate) manifests: Manifests,
    pub(crate) node: Node,
    pub(crate) world: World,
}

impl Stage {
    /// With arguments for the daemon beyond the usual ones.
    pub(crate) fn new(arguments: &[&str]) -> Result<Self> {
        let mut world = World::new()?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
        let backend = world.add_serving_pod(&node, "serve-1", &[BACKEND])?;
        let client = world.add_pod(&node, "client", &["10.12.0.9"])?;
        let manifests = Manifests::new(world.folder("manifests")?)?;
        let service = Service::new("serve", "member2", &[VIP], &[Port::new("http", "TCP", 80)])?;
        manifests.service(&service.annotated("enabled", "true"))?;
        let pod = Endpoint::new(BACKEND, &node.name, "serve-1")?;
        let slice = Slice::new("serve-1", "serve", "member2", "member2", &[pod]);
        manifests.slice(&slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]))?;
        let source = format!("directory={}", manifests.folder().display());
        let daemon = Daemon::start_with(&node, &[&["--source", &source], arguments].concat())?;
        Ok(Self { daemon, client, _backend: backend, manifests, node, world })
    }

    pub(crate) fn pin_dir(&self) -> &Path {
        self.daemon.pin_dir()
    }

    /// Where the daemon keeps names.
    pub(crate) fn run_dir(&self) -> Result<PathBuf> {
        Ok(Path::new("/run").join(self.pin_dir().file_name().context("no name")?))
    }

    /// What a command says that is run on the node.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output> {
        let pin_dir = self.pin_dir().display().to_string();
        let mut command = self.node.namespace.command(programs::mcs_proxy()?)?;
        Ok(command.args(arguments).args(["--pin-dir", &pin_dir]).output()?)
    }

    /// The same; it is to succeed.
    pub(crate) fn say(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same; it is to be refused.
    pub(crate) fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{arguments:?}: {said}");
        Ok(said)
    }

    /// What is pinned, by its place beneath the pin directory; of a link its id, which another link in its place would not have.
    pub(crate) fn pins(&self) -> Result<BTreeMap<PathBuf, Option<u32>>> {
        let (mut pins, mut directories) = (BTreeMap::new(), vec![self.pin_dir().to_owned()]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)? {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                if kind.is_dir() {
                    directories.push(path);
                } else {
                    let object = object_get(&path, Access::ReadWrite)?;
                    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))?;
                    let id = info.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok());
                    pins.insert(path.strip_prefix(self.pin_dir())?.to_owned(), id);
                }
            }
        }
        Ok(pins)
    }

    /// TCX programs on the client's interface, whoever's: from the pod, to it.
    pub(crate) fn attached(&self) -> Result<[usize; 2]> {
        let line = self.node.namespace.ip(&format!("-o link show dev {}", self.client.host_interface))?;
        let index: u32 = line.split(':').next().context("no index")?.parse()?;
        self.node.namespace.run(move || {
            let count = |hook| tcx_query(index, hook).map(|found| found.len());
            anyhow::Ok([count(TcxHook::Ingress)?, count(TcxHook::Egress)?])
        })
    }

    /// `cls_bpf` filters on the client's interface, whoever's: from the pod, to it.
    pub(crate) fn filters(&self) -> Result<[usize; 2]> {
        let count = |way: &str| -> Result<usize> {
            let interface = &self.client.host_interface;
            let shown = self.node.namespace.tc(&format!("filter show dev {interface} {way}"))?;
            Ok(shown.matches("direct-action").count())
        };
        Ok([count("ingress")?, count("egress")?])
    }
}

pub(crate) fn vip() -> Result<SocketAddr> {
    Ok(SocketAddr::new(VIP.parse()?, 80))
}
