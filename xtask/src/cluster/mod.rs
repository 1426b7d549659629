//! `cargo xtask cluster`: a real Kubernetes cluster on this machine, to try mcs-proxy on by hand.

mod images;

use crate::{
    image::shipped_program,
    run::{Beside, build, say},
    setup::{self, Assets, Purpose},
};
use anyhow::{Context, Result, bail};
use mcs_proxy_tests::{
    Lifetime, ProxyMode,
    cluster::{Cluster, ClusterOptions, Cni},
    kept_runs, tear_down_kept,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Instant,
};

pub(crate) use images::build as build_images;

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Start it: API server, controllers, and nodes with a kubelet and a containerd each
    Up(Up),
    /// End and remove it
    Down,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Up {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=200))]
    nodes: u8,
    /// What serves Services that are not opted in
    #[arg(long, value_enum, default_value = "nftables", value_name = "nftables|iptables|none")]
    kube_proxy: Beneath,
    /// CoreDNS, for names of Services
    #[arg(long)]
    dns: bool,
    /// How pods are wired
    #[arg(long, value_enum, default_value = "bridge", value_name = "bridge|ptp")]
    cni: Wiring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Beneath {
    Nftables,
    Iptables,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wiring {
    Bridge,
    Ptp,
}

pub(crate) fn run(workspace: &Path, act: &Act) -> Result<()> {
    match act {
        Act::Up(up) => self::up(workspace, *up),
        Act::Down => down(),
    }
}

fn up(workspace: &Path, up: Up) -> Result<()> {
    if let Some(run) = kept_runs()?.first() {
        bail!("{run} is still up: `cargo xtask cluster down` (or `demo --tear-down`) ends it first");
    }
    prepare(workspace)?;
    let start = Instant::now();
    let cluster = Cluster::start(ClusterOptions {
        nodes: up.nodes,
        cni: match up.cni {
            Wiring::Bridge => Cni::Bridge,
            Wiring::Ptp => Cni::Ptp,
        },
        kube_proxy: match up.kube_proxy {
            Beneath::Nftables => Some(ProxyMode::Nftables),
            Beneath::Iptables => Some(ProxyMode::Iptables),
            Beneath::None => None,
        },
        dns: up.dns,
        lifetime: Lifetime::MayBeKept,
    })?;
    let tools = wrappers(&cluster, workspace)?;
    say(format!(
        "{} nodes are ready after {:.1?}. On this machine, and in a shell of yours:\n",
        up.nodes,
        start.elapsed()
    ));
    println!("  export PATH={}:$PATH", tools.display());
    println!("  kubectl get nodes -o wide");
    println!("  helm install mcs-proxy deploy/chart --namespace mcs-proxy --create-namespace \\");
    println!(
        "    --set clusterName=member1,socketPath.cgroup={}{}",
        Cluster::CGROUP,
        api_server(up.kube_proxy)
    );
    println!("  kubectl apply -f deploy/examples/cluster/serve.yaml");
    // Without DNS by its address.
    let host = if up.dns {
        "serve.default.svc.cluster.local"
    } else {
        "$(kubectl get service serve -o jsonpath={.spec.clusterIP})"
    };
    println!("  kubectl wait --for=condition=Ready pod/client");
    println!("  kubectl exec client -- hello-pod call {host}:80 10");
    println!("  kubectl mcs-proxy services --node node1");
    println!("\n`on node1 COMMAND…` runs a command on a node; their logs are in");
    println!(
        "  {}",
        cluster.nodes().first().map(|node| node.world().display().to_string()).unwrap_or_default()
    );
    println!("`cargo xtask cluster down` ends it.");
    cluster.keep()
}

/// Without a kube-proxy nobody leads to the API server's ClusterIP.
fn api_server(beneath: Beneath) -> String {
    match beneath {
        Beneath::None => format!(",apiServer.host={}", Cluster::API_SERVER.0),
        Beneath::Nftables | Beneath::Iptables => String::new(),
    }
}

fn down() -> Result<()> {
    let removed = tear_down_kept()?;
    if removed.is_empty() {
        say("No cluster is up.");
    }
    for run in removed {
        say(format!("Removed {run}: its processes, namespaces, cgroups and files."));
    }
    Ok(())
}

/// Sees to everything that a cluster takes, and tells the harness where it is.
fn prepare(workspace: &Path) -> Result<()> {
    setup::run(workspace, Purpose::Cluster)?;
    setup::kube(workspace, Beside::Nothing)?;
    setup::cluster(workspace, Beside::Nothing)?;
    build(workspace, &["cluster-node"])?;
    build_images(workspace)?;
    let (Assets::Given(kube) | Assets::Ours(kube)) = setup::assets(workspace);
    mcs_proxy_tests::programs::look_in(&kube, &setup::cluster_folder(workspace));
    Ok(())
}

/// Programs to call from a shell: the cluster's network is reached from inside it alone.
fn wrappers(cluster: &Cluster, workspace: &Path) -> Result<PathBuf> {
    let folder = cluster.folder("bin")?;
    let write = |name: &str, text: String| -> Result<()> {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).with_context(|| path.display().to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| path.display().to_string())
    };
    let inside = format!("exec nsenter --net=/run/netns/{}", cluster.fabric().name());
    for name in ["kubectl", "helm"] {
        let program = cluster.program(name)?;
        let (kubeconfig, program) = (cluster.kubeconfig(), program.display());
        write(name, format!("KUBECONFIG={} {inside} {program} \"$@\"", kubeconfig.display()))?;
    }
    let plugin = folder.join("kubectl-mcs_proxy");
    symlink(shipped_program(workspace)?, &plugin).with_context(|| plugin.display().to_string())?;
    let nodes =
        cluster.nodes().iter().map(|node| Ok(format!("{}) id={};;", node.name(), node.first_process()?)));
    let nodes = nodes.collect::<Result<Vec<_>>>()?.join("\n");
    write(
        "on",
        format!(
            "case \"$1\" in\n{nodes}\n*) echo \"usage: on NODE COMMAND...\" >&2; exit 2;;\nesac\nshift\n\
             exec nsenter --target $id --mount --uts --net --pid -- \"$@\""
        ),
    )?;
    Ok(folder)
}
