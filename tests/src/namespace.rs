//! Network namespaces and what runs in them.

use crate::{
    api::with_input,
    cleanup,
    sys::{self, Isolation, PacketSocket},
};
use anyhow::{Context, Result, bail};
use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

/// A network namespace by name, as `ip netns` has them. It goes away with its [`World`](crate::World).
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    /// For files about what runs here.
    folder: PathBuf,
    /// Shown in place of `/etc/hosts` and `/etc/resolv.conf` to what runs here.
    hosts: Option<PathBuf>,
    dies_with_us: bool,
}

impl Namespace {
    pub(crate) fn create(name: &str, folder: &Path, dies_with_us: bool) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned(), folder: folder.to_owned(), hosts: None, dies_with_us };
        // No waiting for duplicate addresses: there are none.
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Names the namespace that a process is in.
    pub(crate) fn of_process(name: &str, folder: &Path, process: u32) -> Result<Self> {
        run(Command::new("ip").args(["netns", "attach", name, &process.to_string()]))?;
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), hosts: None, dies_with_us: true })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives what runs here names for addresses: lines as in `/etc/hosts`. There is no other name service.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn set_hosts(&mut self, lines: &str) -> Result<()> {
        let folder = self.folder.join("etc").join(&self.name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n::1 localhost\n{lines}\n"))?;
        fs::write(folder.join("resolv.conf"), "# none\n")?;
        self.hosts = Some(folder);
        Ok(())
    }

    /// A command that runs here.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut files = Vec::new();
        if let Some(folder) = &self.hosts {
            for name in ["hosts", "resolv.conf"] {
                let target = Path::new("/etc").join(name);
                if target.exists() {
                    files.push((path_string(&folder.join(name))?, path_string(&target)?));
                }
            }
        }
        let mut command = Command::new(program);
        sys::isolate(
            &mut command,
            Isolation {
                network: Some(self.open()?),
                files,
                dies_with_us: self.dies_with_us,
                ..Isolation::default()
            },
        );
        Ok(command)
    }

    /// Runs a command of iproute2 here: `namespace.ip("link set lo up")`.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Runs tc here: `namespace.tc("qdisc add dev eth0 clsact")`.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn tc(&self, arguments: &str) -> Result<String> {
        // Not `tc -n`, which mounts a /sys of its own, without the BPF file system.
        run(self.command("tc")?.args(arguments.split_whitespace()))
    }

    /// Makes an interface send packets as they are on a wire: one segment each, checksums computed.
    ///
    /// # Errors
    /// ethtool's.
    pub fn turn_off_offloads(&self, interface: &str) -> Result<()> {
        let off = ["tx", "off", "tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"];
        run(self.command("ethtool")?.args(["-K", interface]).args(off)).map(drop)
    }

    /// Loads nftables rules here.
    ///
    /// # Errors
    /// nft refuses them; the error has its words.
    pub fn nft(&self, rules: &str) -> Result<String> {
        run(self.command("nft")?.arg(rules))
    }

    /// Sets a kernel parameter of this namespace: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// There is no such parameter.
    pub fn sysctl(&self, parameter: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(parameter);
        self.run({
            let (path, value) = (path.clone(), value.to_owned());
            move || fs::write(path, value)
        })
        .with_context(|| path.display().to_string())
    }

    /// Runs a function on a thread of its own in here. Sockets that it opens stay in here.
    ///
    /// # Errors
    /// The namespace is gone; or the function's.
    pub fn run<T, E>(&self, function: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        E: Into<anyhow::Error> + Send + 'static,
    {
        let namespace = self.open()?;
        let thread = thread::Builder::new().name(self.name.clone()).spawn(move || {
            sys::enter_network_namespace(&namespace)?;
            function().map_err(Into::into)
        })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A raw socket on an interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn packet_socket(&self, interface: &str) -> Result<PacketSocket> {
        let interface = interface.to_owned();
        self.run(move || PacketSocket::open(&interface))
    }

    /// Starts a program here that lives until it is dropped. Its output goes to a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = self.command(program)?;
        command.args(arguments);
        self.spawn_command(name, command)
    }

    /// The same in a mount and uts namespace of its own, and with one for the ids of the processes that it starts.
    pub(crate) fn spawn_apart(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(program);
        command.args(arguments);
        let isolation = Isolation {
            network: Some(self.open()?),
            dies_with_us: self.dies_with_us,
            apart: true,
            ..Isolation::default()
        };
        sys::isolate(&mut command, isolation);
        self.spawn_command(name, command)
    }

    pub(crate) fn spawn_command(&self, name: &str, mut command: Command) -> Result<Process> {
        let folder = self.folder.join("log");
        fs::create_dir_all(&folder)?;
        // A terminal's Ctrl-C is for us; we end the rest in order.
        command.process_group(0);
        Process::spawn(&mut command, folder.join(format!("{name}.log")))
    }

    fn open(&self) -> Result<File> {
        cleanup::stop_if_interrupted();
        let path = Path::new("/run/netns").join(&self.name);
        File::open(&path).with_context(|| path.display().to_string())
    }
}

fn path_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| path.display().to_string())
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    cleanup::stop_if_interrupted();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that reads this text, and returns what it printed.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    cleanup::stop_if_interrupted();
    let output = with_input(command, input)?;
    if !output.status.success() {
        let (said, words) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{command:?}: {}: {} {}", output.status, words.trim(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running program; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        cleanup::note_process(child.id());
        Ok(Self { child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its standard error goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for the first line on its standard output.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let stdout = self.child.stdout.take().context("its standard output was read before")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("{}: {}", self.log.display(), fs::read_to_string(&self.log)?.trim());
        }
        Ok(line.trim_end().to_owned())
    }

    /// What it has yet to say on its standard output, until it ends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rest(&mut self) -> Result<String> {
        let stdout = self.child.stdout.take().context("its standard output was read before")?;
        let mut text = String::new();
        BufReader::new(stdout).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end, and says whether it was a good one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn succeeds(&mut self) -> Result<bool> {
        Ok(self.child.wait()?.success())
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// The kernel's.
    pub fn crash(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it, as SIGSTOP does, or lets it go on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pause(&self, paused: bool) -> Result<()> {
        Ok(sys::kill(self.child.id(), if paused { libc::SIGSTOP } else { libc::SIGCONT })?)
    }

    /// Leaves it running after we are gone.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once it has been waited for, its id may be another's.
        if self.is_running().unwrap_or(false) {
            cleanup::end_process(self.child.id());
            drop(self.child.wait());
        }
        cleanup::forget_process(self.child.id());
    }
}
