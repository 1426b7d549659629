//! `serve` has a pod in member1, which was imported, and one in member2, which the API server's own controller knows; a
//! client in member2 calls it, and kube-proxy is there.

use anyhow::Result;
use mcs_proxy_tests::{
    Daemon, KubeProxy, Node, POD_PORT, Pod, ProxyMode, ServiceRow, World,
    api::ApiServer,
    karmada::{Endpoint, Port, Service, Slice},
};
use serde_json::{Value, json};
use std::net::SocketAddr;

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const RANGES: &str = "10.13.0.0/16,fd10:13::/112";
const VIPS: [&str; 2] = ["10.13.181.116", "fd10:13::116"];
const IMPORTS: [&str; 2] = ["member1-serve", "member1-serve-v6"];
/// The pod in member1.
pub(crate) const REMOTE: [&str; 2] = ["10.10.0.6", "fd10:10::6"];
/// The pod in member2.
pub(crate) const LOCAL: [&str; 2] = ["10.12.0.6", "fd10:12::6"];
const SERVICE_PORT: u16 = 80;

/// Fields are dropped in order.
pub(crate) struct Stage {
    pub(crate) proxy: KubeProxy,
    pub(crate) api: ApiServer,
    pub(crate) client: Pod,
    pub(crate) local: Pod,
    pub(crate) _remote: Pod,
    pub(crate) node: Node,
    pub(crate) world: World,
}

impl Stage {
    /// Everything stands but our daemon, and kube-proxy serves `serve` in both families, over TCP and UDP.
    pub(crate) fn new(mode: ProxyMode) -> Result<Self> {
        let mut world = World::new()?;
        let member1 = world.add_node("member1", "member1-node-1", &["10.10.0.0/16", "fd10:10::/64"])?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16", "fd10:12::/64"])?;
        let remote = world.add_serving_pod(&member1, "serve-1", &REMOTE)?;
        let local = world.add_serving_pod(&node, "serve-2", &LOCAL)?;
        let client = world.add_pod(&node, "client", &["10.12.0.9", "fd10:12::9"])?;

        let api = ApiServer::start(&world, RANGES)?;
        api.grant()?;
        api.enter_node(&node)?;
        api.enter_pod(&local, "serve", &[])?;
        api.create(SERVICES, &service()?.yaml())?;
        import(&api, "")?;
        let proxy = KubeProxy::start(&api, &node, mode)?;
        let mut stage = Self { proxy, api, client, local, _remote: remote, node, world };
        stage.wait_for_kube_proxy(&endpoints(true)?)?;
        Ok(stage)
    }

    /// Waits until kube-proxy sends new connections to `serve` and datagrams there, and to no others.
    pub(crate) fn wait_for_kube_proxy(&mut self, endpoints: &[SocketAddr]) -> Result<()> {
        ["serve:http", "serve:echo"]
            .iter()
            .try_for_each(|port| self.proxy.wait_for_endpoints(port, endpoints))
    }

    /// Deletes `serve`, and waits until nobody serves it.
    pub(crate) fn delete(&mut self, daemon: &mut Daemon) -> Result<()> {
        self.api.delete(&format!("{SERVICES}/serve"))?;
        daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
        self.wait_for_kube_proxy(&[])
    }

    /// Makes another `serve` with the same addresses, ours or kube-proxy's, and waits until it is served.
    pub(crate) fn create(&mut self, daemon: &mut Daemon, ours: bool) -> Result<()> {
        let service = service()?;
        let service = if ours { service.annotated("enabled", "true") } else { service };
        self.api.create(SERVICES, &service.yaml())?;
        self.wait_for_kube_proxy(&endpoints(true)?)?;
        if ours { wait_for_endpoints(daemon, 2) } else { Ok(()) }
    }

    /// Our daemon on the node, in step with the API server.
    pub(crate) fn daemon(&self) -> Result<Daemon> {
        self.daemon_with(&[])
    }

    /// The same with these arguments besides.
    pub(crate) fn daemon_with(&self, arguments: &[&str]) -> Result<Daemon> {
        let kubeconfig = self.api.daemon_kubeconfig().display().to_string();
        let own = ["--source", "kubernetes", "--kubeconfig", &kubeconfig];
        Daemon::start_with(&self.node, &[&own, arguments].concat())
    }

    pub(crate) fn change(&self, patch: &Value) -> Result<()> {
        self.api.patch(&format!("{SERVICES}/serve"), patch)
    }

    /// Gives `serve` an annotation of ours; null takes it away.
    fn enable(&self, value: &Value) -> Result<()> {
        self.change(&json!({ "metadata": { "annotations": { "mcs-proxy.io/enabled": value } } }))
    }

    /// Takes the pod in member1 away, in both families.
    pub(crate) fn remove_imports(&self) -> Result<()> {
        IMPORTS.iter().try_for_each(|name| self.api.delete(&format!("{SLICES}/{name}")))
    }

    /// Puts it (back), in slices with this prefix.
    pub(crate) fn import(&self, prefix: &str) -> Result<()> {
        import(&self.api, prefix)
    }

    pub(crate) fn opt_in(&self, daemon: &mut Daemon) -> Result<()> {
        self.opt_in_with(daemon, 2)
    }

    /// The same where there are so many endpoints.
    pub(crate) fn opt_in_with(&self, daemon: &mut Daemon, endpoints: usize) -> Result<()> {
        self.enable(&json!("true"))?;
        wait_for_endpoints(daemon, endpoints)
    }

    pub(crate) fn opt_out(&self, daemon: &mut Daemon) -> Result<()> {
        self.enable(&Value::Null)?;
        daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)
    }
}

fn service() -> Result<Service> {
    Service::new("serve", "member2", &VIPS, &ports(SERVICE_PORT))
}

fn import(api: &ApiServer, prefix: &str) -> Result<()> {
    for (name, address) in IMPORTS.iter().zip(REMOTE) {
        let pod = [Endpoint::new(address, "member1-node-1", "serve-1")?];
        let name = format!("{prefix}{name}");
        let slice = Slice::new(&name, "serve", "member2", "member1", &pod).with_ports(&ports(POD_PORT));
        api.create(SLICES, &slice.yaml())?;
    }
    Ok(())
}

/// Waits until all four frontends of `serve` have so many endpoints.
pub(crate) fn wait_for_endpoints(daemon: &mut Daemon, number: usize) -> Result<()> {
    daemon.wait_for_services(&format!("{number} endpoints"), |rows| {
        let in_maps = |row: &ServiceRow| row.endpoints.iter().filter(|endpoint| endpoint.in_maps).count();
        rows.len() == 4 && rows.iter().all(|row| in_maps(row) == number)
    })
}

/// The endpoints of `serve`, both families; the one in member1 may be left out.
pub(crate) fn endpoints(with_remote: bool) -> Result<Vec<SocketAddr>> {
    let remote = if with_remote { &REMOTE[..] } else { &[] };
    let all = LOCAL.iter().chain(remote);
    all.map(|address| Ok(SocketAddr::new(address.parse()?, POD_PORT))).collect()
}

/// `serve`'s address in each family.
pub(crate) fn vips() -> [SocketAddr; 2] {
    VIPS.map(|vip| SocketAddr::new(vip.parse().unwrap(), SERVICE_PORT))
}

fn ports(port: u16) -> [Port; 2] {
    [Port::new("http", "TCP", port), Port::new("echo", "UDP", port)]
}
