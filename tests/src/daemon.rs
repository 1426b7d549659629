//! A running mcs-proxy, and what its command line says of the maps.

use crate::{Gate, Node, Process, Rule, cleanup, namespace::run, programs, sys};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Goes on as the program: root by name, with three capabilities, as a pod has it.
const CONFINED: [&str; 4] =
    ["setpriv", "--bounding-set=-all,+bpf,+net_admin,+perfmon", "--inh-caps=-all", "--ambient-caps=-all"];

/// The daemon of one node. Dropping it ends it; its pins go with the world.
#[derive(Debug)]
pub struct Daemon {
    process: Option<Process>,
    log: PathBuf,
    pin_dir: PathBuf,
    command: Vec<String>,
    /// A program, with arguments, that goes on as ours, which is named after them; or none.
    under: Vec<String>,
    /// What its calls of bpf(2) have to pass, if so.
    gate: Option<Gate>,
    node: Node,
    /// How long whatever is waited for may take.
    patience: Duration,
}

/// A line of `mcs-proxy services`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    pub name: String,
    pub vip: IpAddr,
    pub port: u64,
    pub protocol: String,
    pub algorithm: String,
    pub flows: u64,
    pub endpoints: Vec<EndpointRow>,
}

/// A line beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    pub address: IpAddr,
    pub cluster: String,
    pub in_maps: bool,
    /// Why it is used or not.
    pub verdict: String,
    pub flows: u64,
}

impl Daemon {
    /// Starts the daemon of a node with manifests from a folder, and waits until it has programmed them.
    ///
    /// # Errors
    /// It does not get there; the error has its log.
    pub fn start(node: &Node, manifests: &Path) -> Result<Self> {
        Self::start_with(node, &["--source", &format!("directory={}", manifests.display())])
    }

    /// As [`start`](Self::start), with arguments of the caller's.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(node: &Node, arguments: &[&str]) -> Result<Self> {
        let mut daemon = Self::start_without_sync(node, arguments)?;
        daemon.wait_for_log("synced")?;
        Ok(daemon)
    }

    /// As [`start_with`](Self::start_with), without the wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_without_sync(node: &Node, arguments: &[&str]) -> Result<Self> {
        mount_bpffs()?;
        let pin_dir = Path::new(BPFFS).join(node.namespace.name());
        let own = [
            "run",
            "--cluster-name",
            &node.cluster,
            "--node-name",
            &node.name,
            "--pin-dir",
            &pin_dir.display().to_string(),
        ];
        let mut command: Vec<String> = own.map(str::to_owned).to_vec();
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let node = node.clone();
        let (log, under, patience) = (PathBuf::new(), Vec::new(), PATIENCE);
        let mut daemon = Self { process: None, log, pin_dir, command, under, gate: None, node, patience };
        daemon.spawn(None)?;
        Ok(daemon)
    }

    /// As [`start_with`](Self::start_with), with pins elsewhere: the arguments name the place as well.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_elsewhere(node: &Node, pin_dir: &Path, arguments: &[&str]) -> Result<Self> {
        let own = ["run", "--cluster-name", &node.cluster, "--node-name", &node.name];
        let command = own.iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
        let mut daemon = Self {
            process: None,
            log: PathBuf::new(),
            pin_dir: pin_dir.to_owned(),
            command,
            under: Vec::new(),
            gate: None,
            node: node.clone(),
            patience: PATIENCE,
        };
        daemon.launch()?;
        Ok(daemon)
    }

    /// Starts the program (again), and waits until it is in step.
    ///
    /// # Errors
    /// It does not get there; the error has its log.
    pub fn launch(&mut self) -> Result<()> {
        self.spawn(None)?;
        self.wait_for_log("synced")
    }

    /// As [`launch`](Self::launch), with more arguments than before.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    pub fn launch_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.add(arguments);
        self.launch()
    }

    /// As [`launch`](Self::launch), from now on with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON alone.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    pub fn launch_confined(&mut self) -> Result<()> {
        self.launch_under(&CONFINED)
    }

    /// As [`launch`](Self::launch), from now on by this program, which goes on as ours: the words after its own.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    pub fn launch_under(&mut self, program: &[&str]) -> Result<()> {
        self.under = program.iter().map(|&word| word.to_owned()).collect();
        self.launch()
    }

    /// As [`launch`](Self::launch), this once with its calls of bpf(2) decided upon by a rule.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    pub fn launch_gated(&mut self, rule: Rule) -> Result<()> {
        self.spawn(Some(rule))?;
        self.wait_for_log("synced")
    }

    /// What its calls of bpf(2) have to pass.
    ///
    /// # Errors
    /// It was launched without.
    pub fn gate(&self) -> Result<&Gate> {
        self.gate.as_ref().context("it was launched without a gate")
    }

    /// As [`launch_with`](Self::launch_with), without the wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch_without_sync_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.add(arguments);
        self.spawn(None)
    }

    /// A flag that was given before has the new value.
    fn add(&mut self, arguments: &[&str]) {
        for &argument in arguments {
            if argument.starts_with("--")
                && let Some(at) = self.command.iter().position(|known| known == argument)
            {
                let has_value = self.command.get(at + 1).is_some_and(|next| !next.starts_with("--"));
                self.command.drain(at..=at + usize::from(has_value));
            }
            self.command.push(argument.to_owned());
        }
    }

    /// Gives a flag this value from the next start on, in place of the one that it has, if any.
    pub fn set_flag(&mut self, flag: &str, value: &str) {
        if let Some(place) = self.command.iter().position(|word| word == flag) {
            self.command.drain(place..self.command.len().min(place + 2));
        }
        self.command.extend([flag.to_owned(), value.to_owned()]);
    }

    /// Starts the program again, without the wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch_without_sync(&mut self) -> Result<()> {
        self.spawn(None)
    }

    fn spawn(&mut self, rule: Option<Rule>) -> Result<()> {
        self.process = None;
        let program = programs::mcs_proxy()?;
        let own = program.display().to_string();
        let words: Vec<&str> =
            self.under.iter().chain([&own]).chain(&self.command).map(String::as_str).collect();
        let (first, arguments) = words.split_first().context("no program")?;
        let namespace = &self.node.namespace;
        let mut command = namespace.command(first)?;
        command.args(arguments);
        if rule.is_some() {
            sys::gate(&mut command);
        }
        let process = namespace.spawn_command(&format!("{}-daemon", namespace.name()), command)?;
        self.gate = rule.map(|rule| Gate::open(process.id(), rule)).transpose().context("its gate")?;
        process.log().clone_into(&mut self.log);
        self.process = Some(process);
        Ok(())
    }

    /// From now on waits long enough for an API server that was out of reach for long: then the daemon asks for it at intervals
    /// of up to a minute.
    pub const fn expect_outages(&mut self) {
        self.patience = Duration::from_secs(150);
    }

    /// Of its process, if it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether the program runs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.as_mut().map_or(Ok(false), Process::is_running)
    }

    /// Ends the program: at once, as a crash does. Its maps and programs stay.
    ///
    /// # Errors
    /// The kernel's.
    pub fn crash(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::crash)
    }

    /// Stops the program, as SIGSTOP does, or lets it go on.
    ///
    /// # Errors
    /// It does not run; or the kernel's.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.process.as_ref().context("it does not run")?.pause(paused)
    }

    /// Asks the program to end, and waits until it has.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Leaves the program running after us, in a world that is kept.
    pub fn leave(mut self) {
        if let Some(process) = self.process.take() {
            process.leave();
        }
    }

    /// Where its maps are.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Where it logs.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Waits until its log has a line with these words.
    ///
    /// # Errors
    /// It ends, or the line does not come; the error has its log.
    pub fn wait_for_log(&mut self, words: &str) -> Result<()> {
        let what = format!("log line with `{words}`");
        self.wait(&what, |daemon| Ok(daemon.log().lines().any(|line| line.contains(words))))
    }

    /// Waits until its log has a warning, or an error, with these words.
    ///
    /// # Errors
    /// As [`wait_for_log`](Self::wait_for_log).
    pub fn wait_for_warning(&mut self, words: &str) -> Result<()> {
        let grave = |line: &str| line.contains(" WARN ") || line.contains(" ERROR ");
        self.wait(&format!("warning with `{words}`"), |daemon| {
            Ok(daemon.log().lines().any(|line| grave(line) && line.contains(words)))
        })
    }

    /// Waits until the maps are as wanted.
    ///
    /// # Errors
    /// It ends, or the maps do not get there; the error has its log and what the maps hold.
    pub fn wait_for_services(&mut self, what: &str, wanted: impl Fn(&[ServiceRow]) -> bool) -> Result<()> {
        self.wait(what, |daemon| Ok(wanted(&daemon.services()?)))
            .with_context(|| format!("the maps: {:#?}", self.services()))
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        loop {
            cleanup::stop_if_interrupted();
            // Whether it runs is asked first: what it logged before it ended then counts.
            let running = self.is_running()?;
            if done(self)? {
                return Ok(());
            }
            let node = &self.node.name;
            if !running {
                bail!("the daemon of {node} ended while waiting for {what}; its log:\n{}", self.log());
            }
            let patience = self.patience;
            if start.elapsed() > patience {
                bail!("no {what} on {node} within {patience:?}; the daemon's log:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command that reads the pins, such as `services`, and returns what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn show(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(programs::mcs_proxy()?).args(arguments).arg("--pin-dir").arg(&self.pin_dir))
    }

    /// What `status -o json` prints, whatever it thinks of it.
    ///
    /// # Errors
    /// It prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let mut command = Command::new(programs::mcs_proxy()?);
        let output = command.args(["status", "-o", "json", "--pin-dir"]).arg(&self.pin_dir).output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What the maps hold.
    ///
    /// # Errors
    /// The command fails or its JSON is not as documented.
    pub fn services(&self) -> Result<Vec<ServiceRow>> {
        let text = self.show(&["services", "-o", "json"])?;
        let rows: Vec<Value> =
            serde_json::from_str(&text).with_context(|| format!("services -o json: {text}"))?;
        rows.iter().map(|row| service_row(row).with_context(|| format!("services -o json: {row}"))).collect()
    }

    /// How many connections the maps hold.
    ///
    /// # Errors
    /// The command fails or its JSON is not as documented.
    pub fn connections(&self) -> Result<usize> {
        let text = self.show(&["connections", "-o", "json"])?;
        let rows: Vec<Value> =
            serde_json::from_str(&text).with_context(|| format!("connections -o json: {text}"))?;
        Ok(rows.len())
    }
}

fn service_row(row: &Value) -> Result<ServiceRow> {
    let endpoints = row["endpoints"].as_array().context("no endpoints")?;
    Ok(ServiceRow {
        name: text(row, "name")?,
        vip: text(row, "vip")?.parse()?,
        port: number(row, "port")?,
        protocol: text(row, "protocol")?,
        algorithm: text(row, "algorithm")?,
        flows: number(&row["counters"], "flows")?,
        endpoints: endpoints.iter().map(endpoint_row).collect::<Result<_>>()?,
    })
}

fn endpoint_row(row: &Value) -> Result<EndpointRow> {
    Ok(EndpointRow {
        address: text(row, "address")?.parse()?,
        cluster: text(row, "cluster")?,
        in_maps: row["in_maps"].as_bool().context("no in_maps")?,
        verdict: text(row, "verdict")?,
        flows: number(row, "flows")?,
    })
}

fn text(row: &Value, field: &str) -> Result<String> {
    Ok(row[field].as_str().with_context(|| format!("no text `{field}`"))?.to_owned())
}

fn number(row: &Value, field: &str) -> Result<u64> {
    row[field].as_u64().with_context(|| format!("no number `{field}`"))
}

/// Pins need a BPF file system; a bare machine may have none mounted.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    if mounts.lines().any(|mount| mount.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    eprintln!("mounting a BPF file system at {BPFFS}, which this machine lacks");
    run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS])).map(drop)
}
