//! `serve` in member2, with a pod in either cluster and a client.

use anyhow::{Context, Result};
use mcs_proxy_tests::{
    Daemon, Node, POD_PORT, Pod, World,
    http::{self, Answer},
    karmada::{Endpoint, Manifests, Port, Service, Slice},
    programs,
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub(crate) const VIP: &str = "10.13.181.116";
pub(crate) const PODS: [&str; 2] = ["10.10.0.6", "10.12.0.6"];
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the daemon serves by default.
pub(crate) fn address() -> SocketAddr {
    "127.0.0.1:10266".parse().unwrap()
}

pub(crate) fn vip() -> SocketAddr {
    SocketAddr::new(VIP.parse().unwrap(), 80)
}

/// Fields are dropped in order.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) client: Pod,
    _pods: Vec<Pod>,
    pub(crate) manifests: Manifests,
    pub(crate) node: Node,
    pub(crate) world: World,
}

impl Stage {
    pub(crate) fn new(arguments: &[&str]) -> Result<Self> {
        let mut world = World::new()?;
        let remote = world.add_node("member1", "member1-node-1", &["10.10.0.0/16"])?;
        let node = world.add_node("member2", "member2-node-1", &["10.12.0.0/16"])?;
        let _pods = vec![
            world.add_serving_pod(&remote, "serve-1", &[PODS[0]])?,
            world.add_serving_pod(&node, "serve-2", &[PODS[1]])?,
        ];
        let client = world.add_pod(&node, "client", &["10.12.0.9"])?;
        let manifests = Manifests::new(world.folder("manifests")?)?;
        manifests.service(&service("serve", VIP)?)?;
        for (provider, name, pod) in
            [("member1", "member1-serve-bcfd6", PODS[0]), ("member2", "serve-mvgj7", PODS[1])]
        {
            manifests.slice(&slice(name, "serve", provider, pod)?)?;
        }
        let source = format!("directory={}", manifests.folder().display());
        let daemon = Daemon::start_with(&node, &[&["--source", &source], arguments].concat())?;
        Ok(Self { daemon, client, _pods, manifests, node, world })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        http::get(&self.node.namespace, address(), path)
    }

    /// The values of a metric's rows that have all of these labels (`cluster="member1"`), summed.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        sum(&self.get("/metrics")?.body, name, labels)
    }
}

pub(crate) fn sum(page: &str, name: &str, labels: &[&str]) -> Result<f64> {
    let rows = page.lines().filter(|line| line.starts_with(name));
    let rows = rows.filter(|line| line[name.len()..].starts_with(['{', ' ']));
    let mut found = rows.filter(|line| labels.iter().all(|label| line.contains(label))).peekable();
    found.peek().with_context(|| format!("no {name} with {labels:?}:\n{page}"))?;
    found.map(|line| Ok(line.rsplit_once(' ').context("no value")?.1.parse::<f64>()?)).sum()
}

pub(crate) fn service(name: &str, vip: &str) -> Result<Service> {
    Ok(Service::new(name, "member2", &[vip], &[Port::new("", "TCP", 80)])?.annotated("enabled", "true"))
}

pub(crate) fn slice(name: &str, service: &str, provider: &str, pod: &str) -> Result<Slice> {
    let pod = Endpoint::new(pod, &format!("{provider}-node-1"), "serve-1")?;
    let ports = [Port::new("", "TCP", POD_PORT)];
    Ok(Slice::new(name, service, "member2", provider, &[pod]).with_ports(&ports))
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        anyhow::ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What a command of mcs-proxy's said, and its exit code.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) json: Value,
}

impl Said {
    /// The line about this part: the worst, if there are several.
    pub(crate) fn line(&self, part: &str) -> Result<&Value> {
        let lines = self.json.as_array().or_else(|| self.json["lines"].as_array()).context("no lines")?;
        let rank =
            |line: &&Value| ["ok", "warning", "failed"].iter().position(|level| line["level"] == *level);
        let about = lines.iter().filter(|line| line["part"] == part);
        about.max_by_key(rank).with_context(|| format!("no line about {part}: {:#}", self.json))
    }

    /// Fails unless the line about this part has this level and these words, in what it says or as the way out.
    pub(crate) fn expect(&self, part: &str, level: &str, words: &str) -> Result<()> {
        let line = self.line(part)?;
        let said = format!("{} {}", line["says"], line["way_out"]);
        anyhow::ensure!(line["level"] == level && said.contains(words), "{part}, {level}, {words}: {line:#}");
        Ok(())
    }
}

impl Stage {
    /// Runs mcs-proxy on the node, on the daemon's pins unless the arguments name others.
    pub(crate) fn run(&self, wrapper: &[&str], arguments: &[&str]) -> Result<Said> {
        let own = programs::mcs_proxy()?;
        let (program, first) = match wrapper.split_first() {
            Some((program, rest)) => {
                let own = own.display().to_string();
                let rest = rest.iter().map(|&argument| argument.to_owned());
                (Path::new(program), rest.chain([own]).collect())
            }
            None => (own.as_path(), Vec::new()),
        };
        let mut command = self.node.namespace.command(program)?;
        command.args(first).args(arguments).args(["-o", "json"]);
        if !arguments.contains(&"--pin-dir") {
            command.arg("--pin-dir").arg(self.daemon.pin_dir());
        }
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Said { code: output.status.code().context("a signal")?, json })
    }
}
