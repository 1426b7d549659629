//! What the acts are played on: three clusters, their manifests, their daemons, a client.

use super::show::Show;
use anyhow::{Context, Result, bail};
use mcs_proxy_tests::{
    Beneath, Daemon, Lifetime, Node, Pod, World,
    client::who,
    karmada::{Endpoint, Manifests, Port, Service, Slice},
};
use std::{
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

pub(crate) const REMOTE_POD: &str = "10.10.0.6";
pub(crate) const LOCAL_POD: &str = "10.12.0.6";
const CLIENT_POD: &str = "10.12.0.9";
const SERVICE_PORT: u16 = 80;

/// A member cluster: one node, and the Service's address in it.
struct MemberFacts {
    name: &'static str,
    pods: &'static str,
    services: &'static str,
    vip: &'static str,
    /// Karmada's name for the cluster's own slice of the Service.
    slice: &'static str,
}

const MEMBERS: [MemberFacts; 3] = [
    MemberFacts {
        name: "member1",
        pods: "10.10.0.0/16",
        services: "10.11.0.0/16",
        vip: "10.11.106.233",
        slice: "serve-bcfd6",
    },
    MemberFacts {
        name: "member2",
        pods: "10.12.0.0/16",
        services: "10.13.0.0/16",
        vip: "10.13.181.116",
        slice: "serve-mvgj7",
    },
    MemberFacts {
        name: "member3",
        pods: "10.14.0.0/16",
        services: "10.15.0.0/16",
        vip: "10.15.187.80",
        slice: "serve-5qzln",
    },
];
/// The member where the client is.
const HERE: usize = 1;

/// Fields are dropped in order: programs end before the world they run in goes.
pub(crate) struct Stage {
    daemons: Vec<Daemon>,
    pods: Vec<Pod>,
    pub(crate) client: Pod,
    pub(crate) beneath: Beneath,
    manifests: Vec<Manifests>,
    nodes: Vec<Node>,
    world: World,
}

impl Stage {
    pub(crate) fn build(show: &Show, keep: bool) -> Result<Self> {
        let lifetime = if keep { Lifetime::MayBeKept } else { Lifetime::Ours };
        let mut world = World::with_lifetime(lifetime)?;
        show.heading("The stage: three clusters in network namespaces, pod networks routed to one another");
        let (mut nodes, mut manifests) = (Vec::new(), Vec::new());
        for member in &MEMBERS {
            let node = world.add_node(member.name, &format!("{}-node-1", member.name), &[member.pods])?;
            show.line(format!(
                "  {}: node {} at {}, pods {}, Services {}, `serve` at {}",
                member.name, node.name, node.address, member.pods, member.services, member.vip
            ));
            nodes.push(node);
            manifests.push(Manifests::new(world.folder(&format!("manifests-{}", member.name))?)?);
        }
        let [node1, here, ..] = nodes.as_slice() else { bail!("three members make three nodes") };
        let remote = world.add_serving_pod(node1, "serve-7d4b9c-x2x5p", &[REMOTE_POD])?;
        let mut client = world.add_pod(here, "client", &[CLIENT_POD])?;
        // In place of the cluster's DNS.
        client.namespace.set_hosts(&format!("{} serve serve.default.svc.cluster.local", vip()?.ip()))?;
        show.line(format!(
            "  pod {} of `serve` at {REMOTE_POD} in member1; a client at {CLIENT_POD} in member2",
            remote.name
        ));

        let beneath = Beneath::new(&here.namespace, vip()?, &[REMOTE_POD.parse()?])?;
        show.line(
            "  nftables rules stand in for kube-proxy in member2: they translate what mcs-proxy leaves alone",
        );

        let pods = vec![remote];
        let mut stage = Self { daemons: Vec::new(), pods, client, beneath, manifests, nodes, world };
        stage.set_service(|service| service.annotated("enabled", "true"))?;
        stage.write_slices(&[])?;
        for (node, manifests) in stage.nodes.iter().zip(&stage.manifests) {
            stage.daemons.push(Daemon::start(node, manifests.folder())?);
            show.line(format!("  mcs-proxy runs on {}: synced", node.name));
        }
        Ok(stage)
    }

    /// Writes the Service into every member, as Karmada does when it changes in the control plane.
    pub(crate) fn set_service(&self, change: impl Fn(Service) -> Service) -> Result<()> {
        for (member, manifests) in MEMBERS.iter().zip(&self.manifests) {
            let ports = [Port::new("", "TCP", SERVICE_PORT)];
            let service = Service::new("serve", member.name, &[member.vip], &ports)?;
            manifests.service(&change(service))?;
        }
        Ok(())
    }

    /// Writes every member's slice into every member; `local` are member2's pods, member1 has its one, member3 none.
    fn write_slices(&self, local: &[Endpoint]) -> Result<()> {
        let remote = [Endpoint::new(REMOTE_POD, "member1-node-1", "serve-7d4b9c-x2x5p")?];
        for (member, manifests) in MEMBERS.iter().zip(&self.manifests) {
            for provider in &MEMBERS {
                let pods: &[Endpoint] = match provider.name {
                    "member1" => &remote,
                    "member2" => local,
                    _ => &[],
                };
                let name = if provider.name == member.name {
                    provider.slice.to_owned()
                } else {
                    format!("{}-{}", provider.name, provider.slice)
                };
                manifests.slice(&Slice::new(&name, "serve", member.name, provider.name, pods))?;
            }
        }
        Ok(())
    }

    /// Scales `serve` into member2: a pod, and the slices that follow.
    pub(crate) fn scale_into_here(&mut self) -> Result<()> {
        let pod = self.world.add_serving_pod(&self.nodes[HERE], "serve-7d4b9c-m8rkl", &[LOCAL_POD])?;
        self.write_slices(&[Endpoint::new(LOCAL_POD, &pod.node, &pod.name)?])?;
        self.pods.push(pod);
        self.beneath.set_endpoints(&[REMOTE_POD.parse()?, LOCAL_POD.parse()?])
    }

    /// The daemon where the client is.
    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemons[HERE]
    }

    /// One request from the client pod: curl, by name, over a connection of its own.
    pub(crate) fn request(&self) -> Result<(IpAddr, String)> {
        let output = self
            .client
            .namespace
            .command("curl")?
            .args(["--silent", "--show-error", "--max-time", "5", "http://serve/"])
            .stdin(Stdio::null())
            .output()
            .context("curl")?;
        if !output.status.success() {
            bail!("curl http://serve/: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((who(&answer)?, answer))
    }

    /// Leaves everything standing.
    pub(crate) fn keep(self, show: &Show) -> Result<()> {
        let client = self.client.namespace.name();
        let node = self.nodes[HERE].namespace.name();
        let pins = self.daemons[HERE].pin_dir().display().to_string();
        let program = mcs_proxy_tests::programs::mcs_proxy()?;
        let program = program.display();
        self.world.keep()?;
        show.heading("Left standing");
        show.line("  Call the Service from the client pod:");
        show.line(format!("    ip netns exec {client} curl http://{}/", vip()?.ip()));
        show.line("  Ask the maps of member2's node:");
        for command in ["services", "backends", "connections"] {
            show.line(format!("    {program} {command} --pin-dir {pins}"));
        }
        show.line("  Look at the node, change a manifest (the daemon follows), read a daemon's log:");
        show.line(format!("    ip netns exec {node} ip route"));
        show.line(format!("    ls {}", self.manifests[HERE].folder().display()));
        show.line(format!("    tail {}", self.daemons[HERE].log_path().display()));
        show.line("  Remove it all:");
        show.line("    cargo xtask demo --tear-down");
        self.daemons.into_iter().for_each(Daemon::leave);
        self.pods.into_iter().for_each(Pod::leave);
        self.client.leave();
        Ok(())
    }
}

fn vip() -> Result<SocketAddr> {
    Ok(SocketAddr::new(MEMBERS[HERE].vip.parse()?, SERVICE_PORT))
}
