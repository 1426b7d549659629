//! The first process of a node: it lays out what the node sees, starts containerd and kubelet, and starts them again when
//! they end, as systemd would.

use crate::{namespace::run, sys};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::Path,
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Runs as `cluster-node PLAN` in new namespaces, of which a new process makes the most; and in that as
/// `cluster-node PLAN first`. Prints the id of the node's first process.
///
/// # Errors
/// The plan is none, or the kernel refuses something.
pub fn first_process(arguments: &[String]) -> Result<()> {
    match arguments {
        [plan] => {
            let mut first = Command::new(std::env::current_exe()?);
            first.args([plan, "first"]).stdin(Stdio::null()).stdout(Stdio::null());
            // With this process the node dies: the kernel kills what is in the namespace of its first process.
            sys::isolate(&mut first, sys::Isolation { dies_with_us: true, ..Default::default() });
            let mut first = first.spawn().context("a node's first process")?;
            println!("{}", first.id());
            let ended = first.wait()?;
            bail!("a node's first process ended: {ended}")
        }
        [plan, word] if word == "first" => {
            let plan = serde_json::from_str(&fs::read_to_string(plan).with_context(|| plan.clone())?)?;
            Init { plan }.run()
        }
        _ => bail!("usage: cluster-node PLAN"),
    }
}

struct Init {
    plan: Value,
}

impl Init {
    fn text(&self, name: &str) -> Result<&str> {
        self.plan[name].as_str().with_context(|| format!("the plan has no {name}"))
    }

    fn run(&self) -> Result<()> {
        self.mounts()?;
        run(Command::new("hostname").arg(self.text("name")?))?;
        // Its own processes and its pods' are all in its part of cgroup2.
        fs::write(Path::new(self.text("system")?).join("cgroup.procs"), process::id().to_string())
            .context("its part of cgroup2")?;

        let mut containerd = self.containerd()?;
        self.import_images()?;
        let mut kubelet = self.kubelet()?;
        loop {
            let ended = sys::wait_for_any_child()?;
            if ended == containerd || ended == kubelet {
                // As RestartSec= of their units, shortened.
                thread::sleep(Duration::from_millis(500));
            }
            if ended == containerd {
                containerd = self.containerd()?;
            } else if ended == kubelet {
                kubelet = self.kubelet()?;
            }
        }
    }

    fn mounts(&self) -> Result<()> {
        let (folder, world) = (self.text("folder")?, self.text("world")?);
        let mount = |arguments: &str| run(Command::new("mount").args(arguments.split(' '))).map(drop);
        mount("--make-rprivate /")?;
        mount("-t proc proc /proc")?;
        // A /sys that shows this network namespace, with the machine's cgroups and a BPF file system of its own.
        mount(&format!("--rbind /sys/fs/cgroup {folder}/cgroup"))?;
        mount("-t sysfs sysfs /sys")?;
        mount(&format!("--rbind {folder}/cgroup /sys/fs/cgroup"))?;
        run(Command::new("umount").args(["--lazy", &format!("{folder}/cgroup")]))?;
        mount("-t bpf bpf /sys/fs/bpf")?;
        // A /run of its own, in which the cluster's files are where they were.
        mount(&format!("--rbind {world} /mnt"))?;
        mount("-t tmpfs -o mode=755 tmpfs /run")?;
        fs::create_dir_all(world)?;
        mount(&format!("--move /mnt {world}"))?;
        mount("--make-rshared /")?;
        mount(&format!("--bind {folder}/lib /var/lib"))?;
        mount(&format!("--bind {folder}/log /var/log"))?;
        fs::create_dir_all("/run/netns")?;
        fs::create_dir_all(super::Cluster::CGROUP)?;
        mount(&format!("--bind {} {}", self.text("cgroup")?, super::Cluster::CGROUP))?;
        for bound in ["/var/lib", "/var/log", super::Cluster::CGROUP] {
            mount(&format!("--make-shared {bound}"))?;
        }
        // What kubelet wants of the machine is not for us to change.
        for (parameter, value) in
            [("kernel/panic", "10"), ("kernel/panic_on_oops", "1"), ("vm/overcommit_memory", "1")]
        {
            let file = format!("{folder}/sysctl/{}", parameter.replace('/', "."));
            fs::write(&file, format!("{value}\n"))?;
            mount(&format!("--bind {file} /proc/sys/{parameter}"))?;
        }
        Ok(())
    }

    fn containerd(&self) -> Result<u32> {
        let folder = self.text("folder")?;
        let mut containerd = self.program("containerd")?;
        containerd.args(["--config", &format!("{folder}/containerd.toml")]);
        let id = self.spawn("containerd.log", &mut containerd)?;
        let start = Instant::now();
        while run(self.program("ctr")?.arg("version")).is_err() {
            if start.elapsed() > super::PATIENCE {
                bail!("containerd does not answer");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(id)
    }

    fn import_images(&self) -> Result<()> {
        for image in self.plan["images"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            run(self.program("ctr")?.args(["--namespace", "k8s.io", "images", "import", image]))?;
        }
        Ok(())
    }

    fn kubelet(&self) -> Result<u32> {
        let folder = self.text("folder")?;
        let mut kubelet = Command::new(self.text("kubelet")?);
        kubelet
            .args(["--config", &format!("{folder}/kubelet.yaml"), "--root-dir", &format!("{folder}/kubelet")])
            .args(["--kubeconfig", self.text("kubeconfig")?, "--hostname-override", self.text("name")?])
            .args(["--node-ip", self.text("address")?])
            .env("PATH", self.path()?);
        self.spawn("kubelet.log", &mut kubelet)
    }

    /// One of Debian's, with the others in its PATH.
    fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(format!("{}/usr/bin/{name}", self.text("debian")?));
        command.env("PATH", self.path()?);
        Ok(command)
    }

    fn path(&self) -> Result<String> {
        let debian = self.text("debian")?;
        Ok(format!("{debian}/usr/bin:{debian}/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"))
    }

    /// Starts a program that writes to a log of its own. Its end is waited for with that of all others.
    fn spawn(&self, log: &str, command: &mut Command) -> Result<u32> {
        let log = Path::new(self.text("folder")?).join(log);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(child.id())
    }
}
