//! What a run leaves: its samples, and a table that is made from them.
//!
//! Ratios are of speeds, so that `sync.ours/nft` of 50 is to be done in a fiftieth of the time. `sync` is maps that hold what
//! a file of rules says, beside that file loaded by `nft` or `iptables-restore`; `start` is a whole process from its start to
//! all that the API server has programmed, and `change` one change of one Service after that, beside kube-proxy's. The names
//! are those for 10,000 Services with ten endpoints each; others end with `@1000x10`.

use crate::{
    machine::Machine,
    ratio::{Ratio, quantile},
    samples::{Process, Round, Run},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

const NAMELESS_SIZE: (u32, u32) = (10_000, 10);

/// Writes `samples.json` and `table.md`.
pub(crate) fn write(run: &Run, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (name, text) in [("samples.json", serde_json::to_string(run)? + "\n"), ("table.md", markdown(run))] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// What `--json` prints.
pub(crate) fn summary(run: &Run) -> Value {
    let figures: BTreeMap<&str, Option<f64>> = [
        ("sync.kernel_ms", median(&run.syncs, |sync| sync.write_kernel_seconds * 1e3)),
        ("sync.cpu_ms", median(&run.syncs, |sync| sync.write_cpu_seconds * 1e3)),
        ("sync.ms", median(&run.syncs, |sync| sync.seconds * 1e3)),
        ("memory.endpoint_bytes", Some(run.memory.endpoint)),
        ("memory.counters_bytes", Some(run.memory.counters)),
    ]
    .into();
    json!({ "machine": run.machine, "services": run.services, "endpoints": run.endpoints, "ratios": ratios(run), "figures": figures })
}

fn ratios(run: &Run) -> BTreeMap<String, Ratio> {
    let suffix = match (run.services, run.endpoints) {
        NAMELESS_SIZE => String::new(),
        (services, endpoints) => format!("@{services}x{endpoints}"),
    };
    let mut ratios = BTreeMap::new();
    let mut insert = |name: String, of: &dyn Fn(&Round) -> Option<f64>| {
        let values: Vec<f64> = run.rounds.iter().filter_map(of).collect();
        ratios.extend(Ratio::of(&values).map(|ratio| (format!("{name}{suffix}"), ratio)));
    };
    for program in names(run, |round| &round.loads) {
        insert(format!("sync.ours/{program}"), &|round| {
            Some(round.loads.get(&program)? / round.sync.seconds)
        });
    }
    for mode in names(run, |round| &round.theirs) {
        insert(format!("start.ours/kube-proxy-{mode}"), &|round| {
            Some(round.theirs.get(&mode)?.start_seconds / round.ours.start_seconds)
        });
        insert(format!("change.ours/kube-proxy-{mode}"), &|round| {
            Some(change(round.theirs.get(&mode)?)? / change(&round.ours)?)
        });
    }
    ratios
}

fn names<T>(run: &Run, of: impl Fn(&Round) -> &BTreeMap<String, T>) -> Vec<String> {
    run.rounds.first().map(|round| of(round).keys().cloned().collect()).unwrap_or_default()
}

fn change(process: &Process) -> Option<f64> {
    quantile(&process.change_seconds, 0.5)
}

fn median<T>(all: &[T], of: impl Fn(&T) -> f64) -> Option<f64> {
    quantile(&all.iter().map(of).collect::<Vec<_>>(), 0.5)
}

pub(crate) fn markdown(run: &Run) -> String {
    let Machine { processor, cores, memory_gib, kernel, iptables, nftables, kube_proxy } = &run.machine;
    let mut text = format!(
        "Measured on {cores} cores of {processor}, {memory_gib} GiB, Linux {kernel}, with {kube_proxy}, {iptables} and \
         {nftables}: {} Services with {} endpoints each, no two the same. Medians of {} rounds.\n\n\
         | what | who | time |\n|---|---|---|\n",
        run.services,
        run.endpoints,
        run.rounds.len()
    );
    let mut row = |what: &str, who: &str, seconds: Option<f64>| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {what} | {who} | {} |", seconds.map_or("–".to_owned(), time));
    };
    let full = "full sync of what is worked out";
    row(full, "mcs-proxy", median(&run.rounds, |round| round.sync.seconds));
    for program in names(run, |round| &round.loads) {
        row(full, &format!("`{program}`"), median(&run.rounds, |round| round.loads[&program]));
    }
    let start = "from the start of the process to all programmed";
    row(start, "mcs-proxy", median(&run.rounds, |round| round.ours.start_seconds));
    for mode in names(run, |round| &round.theirs) {
        let who = format!("kube-proxy, {mode}");
        row(start, &who, median(&run.rounds, |round| round.theirs[&mode].start_seconds));
    }
    let one = "one change, from its writing to it programmed";
    let changes = |process: &Process| change(process).unwrap_or(f64::NAN);
    row(one, "mcs-proxy", median(&run.rounds, |round| changes(&round.ours)));
    for mode in names(run, |round| &round.theirs) {
        let who = format!("kube-proxy, {mode}");
        row(one, &who, median(&run.rounds, |round| changes(&round.theirs[&mode])));
    }
    text += &alone(run);
    text += "\n| ratio | median | quartiles |\n|---|---|---|\n";
    for (name, ratio) in ratios(run) {
        let _ = writeln!(text, "| `{name}` | {:.1} | {:.1} to {:.1} |", ratio.median, ratio.low, ratio.high);
    }
    text
}

/// Of our own sync.
fn alone(run: &Run) -> String {
    let Some(((all, plan), (cpu, kernel))) =
        median(&run.syncs, |sync| sync.seconds).zip(median(&run.syncs, |sync| sync.plan_seconds)).zip(
            median(&run.syncs, |sync| sync.write_cpu_seconds)
                .zip(median(&run.syncs, |sync| sync.write_kernel_seconds)),
        )
    else {
        return String::new();
    };
    let change = median(&run.syncs, |sync| sync.change_seconds).unwrap_or(f64::NAN);
    let memory = &run.memory;
    format!(
        "\nOur full sync beside nothing, {} times: {}, of which {} go to comparing and laying out, and the writing takes {} \
         of a processor, the kernel's share of it {}. One change of what is worked out takes {}. An endpoint takes {:.0} \
         bytes of the maps, and {:.0} more for what it is counted in, on {} processors.\n",
        run.syncs.len(),
        time(all),
        time(plan),
        time(cpu),
        time(kernel),
        time(change),
        memory.endpoint,
        memory.counters,
        memory.processors,
    )
}

fn time(seconds: f64) -> String {
    match seconds {
        _ if seconds >= 1.0 => format!("{seconds:.2} s"),
        _ if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}
