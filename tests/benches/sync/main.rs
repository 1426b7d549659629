//! How fast Services are programmed: by mcs-proxy, by the real kube-proxy on the same API server, and by the programs that
//! load kube-proxy's rules as it wrote them. What is compared is told in `report.rs`.
//!
//! Every round is one of each: our daemon's start and some changes after it; our sync alone; the same of kube-proxy in either
//! mode, and its rules loaded into an empty namespace once it has ended. iptables is iptables-legacy where the kernel has it,
//! which is faster.

#[path = "../bulk.rs"]
mod bulk;
#[path = "../kube_proxy.rs"]
#[expect(dead_code, reason = "shared with another benchmark, which needs more of it")]
mod kube_proxy;
#[expect(dead_code, reason = "shared with another benchmark, which needs more of it")]
#[path = "../control/log.rs"]
mod log;
#[path = "../traffic/machine.rs"]
mod machine;
mod objects;
mod ours;
mod processes;
#[path = "../ratio.rs"]
mod ratio;
mod report;
mod rules;
mod samples;

use anyhow::Result;
use bulk::Bulk;
use clap::Parser;
use mcs_proxy_tests::{Node, ProxyMode, World, api::ApiServer};
use processes::Cluster;
use samples::{Round, Run};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// Syncs that are measured beside nothing.
const SYNCS: u32 = 11;

/// What `cargo xtask bench sync` says of it.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    quick: bool,
    #[arg(long)]
    services: Option<u32>,
    #[arg(long)]
    rounds: Option<u32>,
    #[arg(long)]
    save: bool,
    #[arg(long)]
    from: Option<PathBuf>,
    #[arg(long)]
    json: bool,
    /// Said by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let folder = if options.save {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/sync/results"))
    } else {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/sync"))
    };
    let run = match &options.from {
        Some(file) => Run::read(file)?,
        None => measure(&options, &folder)?,
    };
    report::write(&run, &folder)?;
    eprintln!("samples.json and table.md are in {}", folder.display());
    if options.json {
        println!("{}", report::summary(&run));
    } else {
        println!("{}", report::markdown(&run));
    }
    Ok(())
}

/// What is there is kept after every round.
fn measure(options: &Options, folder: &Path) -> Result<Run> {
    let services = options.services.unwrap_or(if options.quick { 1000 } else { 10_000 });
    let rounds = options.rounds.unwrap_or(3);
    let start = Instant::now();
    let say = |what: &str| eprintln!("{what} ({:.0} s so far)", start.elapsed().as_secs_f64());
    let mut run = Run {
        machine: machine::describe()?,
        services,
        endpoints: objects::ENDPOINTS,
        memory: ours::memory()?,
        syncs: (0..SYNCS).map(|_| ours::sync(services)).collect::<Result<_>>()?,
        rounds: Vec::new(),
    };
    say(&format!("an API server with {services} Services"));
    let mut world = World::new()?;
    let api = ApiServer::start(&world, objects::SERVICE_RANGE)?;
    api.grant()?;
    let bulk = Bulk::connect(world.fabric(), &api);
    objects::create(&bulk, services)?;
    let mut node = |name: &str| -> Result<Node> {
        // No routes lead here from other nodes, which have the same pods.
        let mut node = world.add_node("bench", name, &[])?;
        node.pod_ranges = vec![objects::POD_RANGE.parse()?];
        api.enter_node(&node)?;
        Ok(node)
    };
    let ours = node("ours")?;
    let nodes = [(ProxyMode::Iptables, node("iptables")?), (ProxyMode::Nftables, node("nftables")?)];
    let rules = world.folder("rules")?;
    let mut cluster = Cluster { api: &api, bulk: &bulk, services, changes: 0 };
    for number in 1..=rounds {
        say(&format!("round {number} of {rounds}"));
        run.rounds.push(round(&mut cluster, &ours, &nodes, &rules)?);
        report::write(&run, folder)?;
    }
    Ok(run)
}

fn round(
    cluster: &mut Cluster<'_>,
    node: &Node,
    nodes: &[(ProxyMode, Node)],
    folder: &Path,
) -> Result<Round> {
    let ours = cluster.ours(node)?;
    let sync = ours::sync(cluster.services)?;
    let (mut theirs, mut loads) = (BTreeMap::new(), BTreeMap::new());
    for (mode, node) in nodes {
        theirs.insert(mode.name().to_owned(), cluster.theirs(node, *mode)?);
        let rules = rules::Rules::save(node, *mode, folder)?;
        loads.insert(rules::loader(*mode).to_owned(), rules.load(node)?.as_secs_f64());
        rules::flush(node, *mode)?;
    }
    Ok(Round { sync, ours, theirs, loads })
}
