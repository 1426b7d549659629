//! mcs-proxy beside the real kube-proxy and beside no proxy at all, on one machine, in one run.
//!
//! Every arm has a node of its own, a network namespace with the pods `client` and `server` behind a veth each; all arms
//! have the same Services, from one API server (into whose storage they are put, see [`objects`]). Client and server are
//! pinned to one core and speak in a closed loop for a slice of time: *crr* is connect, one byte there, one byte back, close; *rr* the two bytes alone, over one
//! connection; *throughput* one stream. One round is a slice of every arm, in an order that changes from round to
//! round; what is compared are the slices of one round, and of these ratios the median over all rounds is told, with
//! quartiles. While it is measured, API server, proxies and daemons are stopped (SIGSTOP): what they have programmed
//! serves, and their own work disturbs nobody, kube-proxy's regular resynchronisation included.
//!
//! `direct` has no netfilter rule and no connection tracking, and neither have `empty` and our own arms; kube-proxy's arms
//! have both, as it needs them. kube-proxy's iptables mode runs over iptables-legacy where the kernel has it: its rules
//! are looked through faster than those of iptables-nft.

mod arm;
#[path = "../bulk.rs"]
mod bulk;
mod cross;
mod lane;
mod machine;
mod objects;
mod plan;
mod progress;
#[path = "../ratio.rs"]
mod ratio;
mod ratios;
mod report;
mod rounds;
mod samples;
mod stage;
mod worker;

use anyhow::Result;
use arm::Arm;
use clap::Parser;
use plan::Plan;
use progress::Progress;
use samples::Run;
use std::{
    env,
    path::{Path, PathBuf},
};

/// What `cargo xtask bench` says of it.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    quick: bool,
    #[arg(long, value_delimiter = ',')]
    arms: Vec<Arm>,
    #[arg(long, value_delimiter = ',')]
    services: Vec<u32>,
    #[arg(long)]
    rounds: Option<u32>,
    #[arg(long)]
    save: bool,
    #[arg(long)]
    from: Option<PathBuf>,
    #[arg(long)]
    cross_check: bool,
    #[arg(long)]
    json: bool,
    /// Said by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(("--worker", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return worker::run(rest);
    }
    let options = Options::parse();
    let plan = Plan::new(&options);
    let folder = if options.save {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/traffic/results"))
    } else {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"))
    };
    if options.cross_check {
        println!("{}", cross::run(&options, &folder)?);
        return Ok(());
    }
    let run = match &options.from {
        Some(file) => Run::read(file)?,
        None => measure(&plan, &folder)?,
    };
    report::write(&run, &folder)?;
    eprintln!("samples.json, table.md and chart.svg are in {}", folder.display());
    if options.json {
        println!("{}", report::summary(&run));
    } else {
        println!("{}", report::markdown(&run));
    }
    Ok(())
}

/// What is there is kept after every size: a run of an hour may be interrupted.
fn measure(plan: &Plan, folder: &Path) -> Result<Run> {
    let mut run = Run::new(machine::describe()?, plan);
    let mut progress = Progress::new(plan);
    for size in &plan.sizes {
        let stage = stage::Stage::new(plan, size, &mut progress)?;
        run.stages.push(rounds::measure(plan, size, stage, &mut progress)?);
        report::write(&run, folder)?;
    }
    Ok(run)
}
