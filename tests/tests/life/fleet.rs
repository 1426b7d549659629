//! Four Services on a node, each with a pod that has many addresses, any of which may be given to another one's.

use anyhow::{Context, Result};
use mcs_proxy_tests::{
    Daemon, Node, POD_PORT, Pod, World,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
};
use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

pub(crate) const SERVICES: usize = 4;

/// Fields are dropped in order.
pub(crate) struct Fleet {
    pub(crate) daemon: Daemon,
    pub(crate) client: Pod,
    _pods: Vec<Pod>,
    manifests: Manifests,
    node: Node,
    world: World,
    /// The Service of each address.
    owners: Vec<usize>,
    /// Those that no slice has.
    out: BTreeSet<usize>,
}

/// Which way packets go between two pods of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ThroughTheHost,
    PastTheHost,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ThroughTheHost => "through the host",
            Self::PastTheHost => "past the host",
        })
    }
}

/// Of a Service.
pub(crate) fn vip(service: usize) -> Result<SocketAddr> {
    Ok(SocketAddr::new(Ipv4Addr::new(10, 13, 0, u8::try_from(service + 1)?).into(), 80))
}

fn address(number: usize) -> Result<IpAddr> {
    Ok(Ipv4Addr::new(10, 12, 100, u8::try_from(number + 1)?).into())
}

fn name(service: usize) -> String {
    format!("of-{service}")
}

fn ports(port: u16) -> [Port; 2] {
    [Port::new("http", "TCP", port), Port::new("echo", "UDP", port)]
}

impl Fleet {
    pub(crate) fn new(addresses: usize, way: Way) -> Result<Self> {
        let mut world = World::new()?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
        let mut pods = Vec::new();
        for service in 0..SERVICES {
            let mut pod = world.add_pod(&node, &name(service), &[&format!("10.12.0.{}", 10 + service)])?;
            // Whichever of them its node sends here is its own.
            pod.namespace.ip("route add local 10.12.100.0/24 dev lo")?;
            pod.addresses = (0..addresses).map(address).collect::<Result<_>>()?;
            pod.serve()?;
            pods.push(pod);
        }
        let client = world.add_pod(&node, "client", &["10.12.0.9"])?;
        let manifests = Manifests::new(world.folder("manifests")?)?;
        let algorithms = ["round-robin", "random", "maglev", "round-robin"];
        for (service, algorithm) in algorithms.into_iter().enumerate() {
            let own = vip(service)?.ip().to_string();
            let object = Service::new(&name(service), "member2", &[&own], &ports(80))?;
            let yaml = object.annotated("enabled", "true").annotated("algorithm", algorithm).yaml();
            let affinity = if service == 3 { "sessionAffinity: ClientIP" } else { "sessionAffinity: None" };
            let yaml = yaml.replace("sessionAffinity: None", affinity);
            manifests.write(&format!("service-{}", name(service)), &yaml)?;
        }
        let source = format!("directory={}", manifests.folder().display());
        let mut arguments = vec!["--source", &source];
        arguments.extend((way == Way::PastTheHost).then_some("--redirect"));
        let daemon = Daemon::start_with(&node, &arguments)?;
        let owners = (0..addresses).map(|number| number % SERVICES).collect();
        let out = (0..addresses).collect();
        let mut fleet = Self { daemon, client, _pods: pods, manifests, node, world, owners, out };
        fleet.pass_on(&(0..addresses).collect::<Vec<_>>())?;
        Ok(fleet)
    }

    /// Of an address.
    pub(crate) fn number(&self, address: IpAddr) -> Result<usize> {
        match address {
            IpAddr::V4(v4) => Ok(usize::from(v4.octets()[3]) - 1),
            IpAddr::V6(_) => anyhow::bail!("{address} is none of the fleet's"),
        }
    }

    /// Three of four addresses, of each Service as many as of the others.
    pub(crate) fn most(&self, round: usize) -> Vec<usize> {
        (0..self.owners.len()).filter(|number| !(number / SERVICES + round).is_multiple_of(4)).collect()
    }

    /// Takes these out of their Services, and waits until no new flow goes there.
    pub(crate) fn take_out(&mut self, numbers: &[usize]) -> Result<()> {
        self.out.extend(numbers);
        self.announce()
    }

    /// Gives these to the next Service's pod and, when that has them, to its Service; waits until new flows go there.
    pub(crate) fn pass_on(&mut self, numbers: &[usize]) -> Result<()> {
        let mut commands = String::new();
        for &number in numbers {
            let next = (self.owners[number] + 1) % SERVICES;
            self.owners[number] = next;
            writeln!(commands, "route replace {}/32 dev veth{}", address(number)?, name(next))?;
            self.out.remove(&number);
        }
        let batch = self.world.folder("batch")?.join("routes");
        fs::write(&batch, commands)?;
        self.node.namespace.ip(&format!("-batch {}", batch.display()))?;
        self.announce()
    }

    fn announce(&mut self) -> Result<()> {
        let mut wanted = Vec::new();
        for service in 0..SERVICES {
            let own: BTreeSet<IpAddr> = (0..self.owners.len())
                .filter(|number| self.owners[*number] == service && !self.out.contains(number))
                .map(address)
                .collect::<Result<_>>()?;
            let endpoint = |address: &IpAddr| Endpoint::new(&address.to_string(), &self.node.name, "pod");
            let endpoints = own.iter().map(endpoint).collect::<Result<Vec<_>>>()?;
            let slice = Slice::new(&name(service), &name(service), "member2", "member2", &endpoints);
            self.manifests.slice(&slice.with_ports(&ports(POD_PORT)))?;
            wanted.push((name(service), own));
        }
        self.daemon
            .wait_for_services("what the slices say", |rows| {
                rows.len() == 2 * SERVICES
                    && rows.iter().all(|row| {
                        let there = row.endpoints.iter().filter(|endpoint| endpoint.in_maps);
                        let there: BTreeSet<IpAddr> = there.map(|endpoint| endpoint.address).collect();
                        wanted.iter().any(|(name, own)| *name == row.name && *own == there)
                    })
            })
            .context("the fleet")
    }
}
