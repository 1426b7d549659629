//! Client and server: this program again, as processes in the pods' namespaces. A process for each, and not a thread,
//! because cgroups, and with them the socket path, are about processes.

mod client;
mod server;

use crate::samples::{Measure, Slice};
use anyhow::{Context, Result, bail};
use mcs_proxy_tests::{Namespace, POD_PORT};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{self, Child, ChildStdin, ChildStdout, Stdio},
    thread,
};

/// The first byte of a connection: what comes is to be sent back.
const ECHO: u8 = b'E';
/// What comes is to be counted, and the number of bytes to be told at its end, as eight bytes in network order.
const COUNT: u8 = b'C';
/// The first byte of `GET`, by which others' programs begin: to be answered as HTTP has it.
const HTTP: u8 = b'G';
/// Bytes a read or write of a stream.
const CHUNK: usize = 256 << 10;

/// One slice, as the client is asked for it: a line of JSON, answered by one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) measure: Measure,
    pub(crate) to: SocketAddr,
    pub(crate) millis: u64,
    /// Local ports, both included.
    pub(crate) ports: (u16, u16),
}

/// A running client or server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    /// It ends when this does.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn serve(namespace: &Namespace, cgroup: &Path) -> Result<Self> {
        Self::spawn(namespace, cgroup, "server")
    }

    pub(crate) fn call(namespace: &Namespace, cgroup: &Path) -> Result<Self> {
        Self::spawn(namespace, cgroup, "client")
    }

    /// Starts it and waits until it is ready. All have the last core: the first has more interrupts to serve.
    fn spawn(namespace: &Namespace, cgroup: &Path, role: &str) -> Result<Self> {
        let core = thread::available_parallelism()?.get() - 1;
        let mut command = namespace.command("taskset")?;
        command
            .args(["--cpu-list", &core.to_string()])
            .arg(env::current_exe()?)
            .args(["--worker", role])
            .arg(cgroup);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start taskset (of util-linux)")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut worker = Self { child, input, output };
        worker.line()?;
        Ok(worker)
    }

    pub(crate) fn ask(&mut self, command: &Command) -> Result<Slice> {
        let input = self.input.as_mut().context("no standard input")?;
        writeln!(input, "{}", serde_json::to_string(command)?)?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            // What was wrong it has said on standard error, which is ours.
            bail!("the process has ended");
        }
        Ok(line)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None;
        drop(self.child.wait());
    }
}

/// What such a process does: `client CGROUP` or `server CGROUP`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [role, cgroup] = arguments else { bail!("--worker client|server CGROUP") };
    let cgroup = Path::new(cgroup);
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string())
        .with_context(|| cgroup.display().to_string())?;
    match role.as_str() {
        "server" => server::start(POD_PORT)?,
        "client" => {}
        other => bail!("--worker {other}: neither client nor server"),
    }
    println!("ready");
    for line in std::io::stdin().lines() {
        let command: Command = serde_json::from_str(&line?)?;
        println!("{}", serde_json::to_string(&client::run(&command, cgroup)?)?);
    }
    Ok(())
}
