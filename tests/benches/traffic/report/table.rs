//! The tables, in Markdown.

use crate::{
    arm::Arm,
    machine::Machine,
    ratios,
    samples::{Figure, Measure, Run, StageSamples, Target},
};
use std::fmt::Write as _;

pub(crate) fn markdown(run: &Run) -> String {
    let Machine { processor, cores, memory_gib, kernel, iptables, nftables, kube_proxy } = &run.machine;
    let mut text = format!(
        "Measured on {cores} cores of {processor}, {memory_gib} GiB, Linux {kernel}, with {kube_proxy}, {iptables} and \
         {nftables}. Client and server share a core. Medians of {} rounds; in brackets the median of the ratios to \
         `direct`, round by round.\n",
        run.rounds
    );
    for stage in &run.stages {
        text += &stage_table(stage);
    }
    text += "\n| ratio | median | quartiles |\n|---|---|---|\n";
    for (name, ratio) in ratios::all(run) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| `{name}` | {:.3} | {:.3} to {:.3} |", ratio.median, ratio.low, ratio.high);
    }
    text
}

/// A column: what it is called, what it shows, and what it is multiplied by to be shown.
const COLUMNS: [(&str, Measure, Figure, f64); 6] = [
    ("connections/s", Measure::Crr, Figure::Rate, 1.0),
    ("connect p50, µs", Measure::Crr, Figure::ConnectP50, 1.0),
    ("connect p99, µs", Measure::Crr, Figure::ConnectP99, 1.0),
    ("CPU a connection, µs", Measure::Crr, Figure::Cpu, 1e6),
    ("round trips/s", Measure::Rr, Figure::Rate, 1.0),
    ("Gbit/s", Measure::Throughput, Figure::Rate, 8e-9),
];

fn stage_table(stage: &StageSamples) -> String {
    let plural = if stage.services == 1 { "" } else { "s" };
    let endpoints = if stage.endpoints == 1 {
        "one endpoint".to_owned()
    } else {
        format!("{} endpoints", stage.endpoints)
    };
    let mut text = format!("\n**{} Service{plural}, {endpoints} each**\n\n| arm |", stage.services);
    for (name, ..) in COLUMNS {
        let _ = write!(text, " {name} |");
    }
    text += &format!("\n|---|{}\n", "---|".repeat(COLUMNS.len()));
    for arm in Arm::ALL.into_iter().filter(|arm| stage.samples.iter().any(|sample| sample.arm == *arm)) {
        let _ = write!(text, "| {arm} |");
        for (_, measure, figure, factor) in COLUMNS {
            let _ = write!(text, " {} |", cell(stage, arm, measure, figure, factor));
        }
        text.push('\n');
    }
    text
}

fn cell(stage: &StageSamples, arm: Arm, measure: Measure, figure: Figure, factor: f64) -> String {
    let values = |arm| stage.figures(arm, measure, Target::Last, figure);
    let (own, direct) = (values(arm), values(Arm::Direct));
    let ratios: Vec<f64> = own.iter().zip(&direct).map(|(own, direct)| own / direct).collect();
    let (Some(median), Some(ratio)) = (ratios::quantile(&own, 0.5), ratios::quantile(&ratios, 0.5)) else {
        return "–".to_owned();
    };
    let median = median * factor;
    if median < 1000.0 { format!("{median:.1} ({ratio:.2})") } else { format!("{median:.0} ({ratio:.2})") }
}
