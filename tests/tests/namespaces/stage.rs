//! What most tests begin with: `serve` has a pod in member1 and one in member2, and a client in member2 calls it.

use anyhow::Result;
use mcs_proxy_tests::{
    Daemon, Node, POD_PORT, Pod, ServiceRow, World,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
};
use std::net::SocketAddr;

pub(crate) const VIP: &str = "10.13.181.116";
pub(crate) const VIP_V6: &str = "fd10:13::116";
pub(crate) const SERVICE_PORT: u16 = 80;
/// Addresses of the pods: in member1, in member2.
pub(crate) const PODS: [&str; 2] = ["10.10.0.6", "10.12.0.6"];
pub(crate) const PODS_V6: [&str; 2] = ["fd10:10::6", "fd10:12::6"];

/// Fields are dropped in order.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) client: Pod,
    pub(crate) pods: Vec<Pod>,
    pub(crate) manifests: Manifests,
    pub(crate) node: Node,
    /// Of the other cluster; no daemon runs there.
    pub(crate) remote: Node,
    pub(crate) world: World,
}

impl Stage {
    /// Everything stands, and the daemon has programmed the Service.
    pub(crate) fn new() -> Result<Self> {
        Self::with_service(|service| service.annotated("enabled", "true"))
    }

    pub(crate) fn with_service(change: impl Fn(Service) -> Service) -> Result<Self> {
        Self::with(change, &[])
    }

    /// With arguments for the daemon beyond the usual ones.
    pub(crate) fn with(change: impl Fn(Service) -> Service, arguments: &[&str]) -> Result<Self> {
        let mut world = World::new()?;
        let remote = world.add_node("member1", "member1-node-1", &["10.10.0.0/16", "fd10:10::/64"])?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16", "fd10:12::/64"])?;
        let pods = vec![
            world.add_serving_pod(&remote, "serve-1", &[PODS[0], PODS_V6[0]])?,
            world.add_serving_pod(&node, "serve-2", &[PODS[1], PODS_V6[1]])?,
        ];
        let client = world.add_pod(&node, "client", &["10.12.0.9", "fd10:12::9"])?;

        let manifests = Manifests::new(world.folder("manifests")?)?;
        manifests.service(&change(service()?))?;
        for provider in [0, 1] {
            manifests.slice(&slice(provider, PODS[provider])?)?;
            manifests.slice(&slice(provider, PODS_V6[provider])?)?;
        }
        let source = format!("directory={}", manifests.folder().display());
        let daemon = Daemon::start_with(&node, &[&["--source", &source], arguments].concat())?;
        Ok(Self { daemon, client, pods, manifests, node, remote, world })
    }

    /// Waits until every frontend of `serve` has so many endpoints.
    pub(crate) fn wait_for_endpoints(&mut self, number: usize) -> Result<()> {
        self.daemon.wait_for_services(&format!("{number} endpoints"), |services| {
            let in_maps = |row: &ServiceRow| row.endpoints.iter().filter(|endpoint| endpoint.in_maps).count();
            !services.is_empty()
                && services.iter().filter(|row| row.name == "serve").all(|row| in_maps(row) == number)
        })
    }

    /// New flows that the daemon's maps have counted.
    pub(crate) fn flows(&self) -> Result<u64> {
        Ok(self.daemon.services()?.iter().map(|row| row.flows).sum())
    }
}

/// `serve` in member2, of both families, over both protocols.
pub(crate) fn service() -> Result<Service> {
    Service::new("serve", "member2", &[VIP, VIP_V6], &ports(SERVICE_PORT))
}

/// The slice in member2 for the pod in member1 (0) or member2 (1).
pub(crate) fn slice(provider: usize, address: &str) -> Result<Slice> {
    let own = ["serve-bcfd6", "serve-mvgj7"][provider];
    let family = if address.contains(':') { "-v6" } else { "" };
    let (provider, name) = if provider == 0 {
        ("member1", format!("member1-{own}{family}"))
    } else {
        ("member2", format!("{own}{family}"))
    };
    let pod = Endpoint::new(address, &format!("{provider}-node-1"), "serve-1")?;
    Ok(Slice::new(&name, "serve", "member2", provider, &[pod]).with_ports(&ports(POD_PORT)))
}

fn ports(port: u16) -> [Port; 2] {
    [Port::new("http", "TCP", port), Port::new("echo", "UDP", port)]
}

pub(crate) fn v4() -> Result<SocketAddr> {
    Ok(SocketAddr::new(VIP.parse()?, SERVICE_PORT))
}

pub(crate) fn v6() -> Result<SocketAddr> {
    Ok(SocketAddr::new(VIP_V6.parse()?, SERVICE_PORT))
}
