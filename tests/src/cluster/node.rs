use super::{
    ClusterOptions, Cni, Parts,
    cgroups::{Hierarchies, SYSTEM},
    control::node_kubeconfig,
    end_of,
};
use crate::{Namespace, Node, Process, World, namespace::run, programs};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A node: its files outlive its processes, as a disk does.
#[derive(Debug)]
pub struct ClusterNode {
    pub node: Node,
    folder: PathBuf,
    /// All of the cluster's files, which the node sees at the same place.
    world: PathBuf,
    /// Its part of cgroup2, as this machine sees it.
    cgroup: PathBuf,
    /// Its first process's keeper, and that process's id.
    running: Option<(Process, u32)>,
}

impl ClusterNode {
    /// Writes its files.
    pub(super) fn new(world: &World, node: Node, parts: &Parts, options: ClusterOptions) -> Result<Self> {
        let folder = world.folder(&node.name)?;
        let control = world.folder("control")?;
        let whole = folder.parent().context("a world's folder")?.to_owned();
        let hierarchies = Hierarchies::find()?;
        let cluster = format!("{}-nodes", world.name());
        hierarchies.make(&cluster, &node.name)?;
        let v2 = hierarchies.v2.context("no cgroup2 is mounted below /sys/fs/cgroup")?;
        let cgroup = v2.join(&cluster).join(&node.name);

        let debian = parts.debian();
        let folders = ["lib", "log", "containerd", "kubelet", "sysctl", "cgroup", "cni.d", "volume-plugins"];
        for name in folders {
            fs::create_dir_all(folder.join(name))?;
        }
        let inside = |name: &str| folder.join(name).display().to_string();
        fs::write(
            folder.join("containerd.toml"),
            containerd(&folder, &debian.join("usr/lib/cni").display().to_string()),
        )?;
        fs::write(folder.join("cni.d/10-cluster.conflist"), cni(&node, options.cni, &inside("cni")))?;
        let dns: &[&str] = if options.dns { &[super::dns::ADDRESS] } else { &[] };
        fs::write(
            folder.join("kubelet.yaml"),
            json!({
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": node.address.to_string(),
                "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
                "authorization": {"mode": "AlwaysAllow"},
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": format!("/{cluster}/{}", node.name),
                "clusterDNS": dns,
                "clusterDomain": "cluster.local",
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
                // Hybrid machines have v1.
                "failCgroupV1": false,
                "failSwapOn": false,
                "evictionHard": {"memory.available": "100Mi"},
                "imageGCHighThresholdPercent": 100,
                "maxOpenFiles": 20000,
                "nodeStatusUpdateFrequency": "2s",
                "oomScoreAdj": 0,
                "registerNode": true,
                "syncFrequency": "10s",
                "volumePluginDir": inside("volume-plugins"),
            })
            .to_string(),
        )?;
        let plan = json!({
            "name": node.name,
            "address": node.address.to_string(),
            "folder": folder,
            "world": whole,
            "cgroup": cgroup,
            "system": cgroup.join(SYSTEM),
            "debian": debian,
            "kubelet": parts.program("kubelet")?,
            "kubeconfig": node_kubeconfig(&control, &node.name),
            "images": parts.images()?,
        });
        fs::write(folder.join("plan.json"), plan.to_string())?;
        Ok(Self { node, folder, world: whole, cgroup, running: None })
    }

    /// Switches it on; it is ready some seconds later.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self) -> Result<()> {
        let plan = self.folder.join("plan.json").display().to_string();
        let name = self.namespace().name().to_owned();
        let mut process = self.namespace().spawn_apart(&name, &programs::cluster_node()?, &[&plan])?;
        let first = process.first_line()?.parse().context("the id of a node's first process")?;
        self.running = Some((process, first));
        Ok(())
    }

    /// Ends all its processes at once, as a loss of power does. What the kernel has of it stays: its interfaces, and
    /// what is attached to them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn crash(&mut self) -> Result<()> {
        let Some((process, _)) = self.running.take() else { bail!("{} is off", self.node.name) };
        process.crash()
    }

    /// Ends its kubelet as a crash would; it is started again at once.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash_kubelet(&self) -> Result<()> {
        run(&mut self.command("pkill", &["-KILL", "-x", "kubelet"])?).map(drop)
    }

    pub fn name(&self) -> &str {
        &self.node.name
    }

    pub fn namespace(&self) -> &Namespace {
        &self.node.namespace
    }

    /// Its part of cgroup2, as this machine sees it.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The id of its first process, as this machine sees it.
    ///
    /// # Errors
    /// It is off.
    pub fn first_process(&self) -> Result<u32> {
        self.running.as_ref().map(|(_, first)| *first).with_context(|| format!("{} is off", self.node.name))
    }

    /// A command that runs on it as a person's does who has logged in.
    ///
    /// # Errors
    /// It is off.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.first_process()?.to_string(),
            "--mount",
            "--uts",
            "--net",
            "--pid",
            "--",
            program,
        ]);
        command.args(arguments);
        Ok(command)
    }

    /// Runs a command on it and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(program, arguments)?)
    }

    /// The ids, as this machine sees them, of the processes of a pod, by the pod's UID, in their order.
    ///
    /// # Errors
    /// cgroup2 cannot be read.
    pub fn processes_of(&self, uid: &str) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        collect(
            &self.cgroup,
            &|path| path.contains(uid) || path.contains(&uid.replace('-', "_")),
            &mut found,
        )?;
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn check(&mut self) -> Result<()> {
        let Some((process, _)) = &mut self.running else { return Ok(()) };
        if process.is_running()? {
            return Ok(());
        }
        bail!("{} has ended: {}{}", self.node.name, end_of(process.log()), self.end_of_logs())
    }

    pub(super) fn end_of_logs(&self) -> String {
        ["containerd.log", "kubelet.log"].map(|name| end_of(&self.folder.join(name))).concat()
    }

    /// The folder with its logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of its cluster.
    pub fn world(&self) -> &Path {
        &self.world
    }
}

fn collect(group: &Path, wanted: &impl Fn(&str) -> bool, found: &mut Vec<u32>) -> Result<()> {
    for entry in fs::read_dir(group).with_context(|| group.display().to_string())?.flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        if wanted(&path.display().to_string()) {
            let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(processes.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        collect(&path, wanted, found)?;
    }
    Ok(())
}

/// Of containerd 1.6, which is Debian 12's.
fn containerd(folder: &Path, plugins: &str) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Scores below the machine's own are not for every root to give.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni.d"
"#
    )
}

fn cni(node: &Node, cni: Cni, data: &str) -> String {
    let ranges: Vec<_> = node.pod_ranges.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
    let ipam =
        json!({"type": "host-local", "dataDir": data, "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]});
    let plugin = match cni {
        Cni::Bridge => {
            json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": ipam})
        }
        Cni::Ptp => json!({"type": "ptp", "ipam": ipam}),
    };
    json!({"cniVersion": "0.4.0", "name": "cluster", "plugins": [plugin]}).to_string()
}
