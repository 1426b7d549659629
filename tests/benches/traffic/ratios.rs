//! What is told of a run: medians of ratios between slices of one round.
//!
//! A name is `FIGURE.ARM/OTHER@SERVICES`, such as `crr.packet/kube-proxy-nftables@10000`. The figures `crr`, `rr`,
//! `throughput` and `bystander` (crr between pods, of no Service) are rates: above 1 the arm is the faster one.
//! `connect-p50`, `connect-p99` (the time that `connect` takes) and `cpu` (processor time a transaction of crr) are
//! better below 1. Without `@` there is one Service; `@1000x10` are 1,000 Services with ten endpoints each. Called is
//! the last Service, as [`Target`] has it, unless `:first` or `:middle` follows. `crr.packet@50000/@1` compares two
//! sizes, either by its ratio to `direct` of the same round, for they are not measured at one time.

use crate::{
    arm::Arm,
    samples::{Figure, Measure, Run, StageSamples, Target},
};
use std::collections::BTreeMap;

pub(crate) use crate::ratio::{Ratio, quantile};

pub(crate) fn all(run: &Run) -> BTreeMap<String, Ratio> {
    let mut ratios = BTreeMap::new();
    for stage in &run.stages {
        within(stage, &mut ratios);
    }
    if let Some(one) = run.stages.iter().find(|stage| (stage.services, stage.endpoints) == (1, 1)) {
        for stage in run.stages.iter().filter(|stage| stage.services > 1) {
            for arm in Arm::ALL.into_iter().filter(|arm| *arm != Arm::Direct) {
                let name = format!("crr.{arm}{}/@1", suffix(stage));
                insert(&mut ratios, name, &quotients(&to_direct(stage, arm), &to_direct(one, arm)));
            }
        }
    }
    ratios
}

/// Ratios between the arms at one size.
fn within(stage: &StageSamples, ratios: &mut BTreeMap<String, Ratio>) {
    let targets = [Target::Last, Target::First, Target::Middle, Target::Bystander];
    for measure in [Measure::Crr, Measure::Rr, Measure::Throughput] {
        for (target, figure) in
            targets.into_iter().flat_map(|target| Figure::ALL.map(|figure| (target, figure)))
        {
            let Some((name, place)) = names(measure, target, figure) else { continue };
            for (arm, other) in pairs() {
                let values = |arm| stage.figures(arm, measure, target, figure);
                let full = format!("{name}.{arm}/{other}{}{place}", suffix(stage));
                insert(ratios, full, &quotients(&values(arm), &values(other)));
            }
        }
    }
}

/// Every arm to `direct`, and ours to kube-proxy's and to empty programs.
fn pairs() -> impl Iterator<Item = (Arm, Arm)> {
    let others = [Arm::Direct, Arm::Empty, Arm::KubeProxyNftables, Arm::KubeProxyIptables];
    let is_ours = |arm: Arm| matches!(arm, Arm::Packet | Arm::Redirect | Arm::Socket);
    Arm::ALL
        .into_iter()
        .flat_map(move |arm| others.map(|other| (arm, other)))
        .filter(move |&(arm, other)| arm != other && (other == Arm::Direct || is_ours(arm)))
}

/// The first part of a name, and what ends it; none for what says nothing.
const fn names(measure: Measure, target: Target, figure: Figure) -> Option<(&'static str, &'static str)> {
    let name = match (measure, figure, target) {
        (Measure::Crr, Figure::Rate, Target::Bystander) => "bystander",
        (_, _, Target::Bystander) => return None,
        (Measure::Crr, Figure::Rate, _) => "crr",
        (Measure::Crr, Figure::ConnectP50, _) => "connect-p50",
        (Measure::Crr, Figure::ConnectP99, _) => "connect-p99",
        (Measure::Crr, Figure::Cpu, _) => "cpu",
        (Measure::Rr, Figure::Rate, _) => "rr",
        (Measure::Throughput, Figure::Rate, _) => "throughput",
        (Measure::Rr | Measure::Throughput, Figure::ConnectP50 | Figure::ConnectP99 | Figure::Cpu, _) => {
            return None;
        }
    };
    let place = match target {
        Target::First => ":first",
        Target::Middle => ":middle",
        Target::Last | Target::Bystander => "",
    };
    Some((name, place))
}

fn suffix(stage: &StageSamples) -> String {
    match (stage.services, stage.endpoints) {
        (1, 1) => String::new(),
        (services, 1) => format!("@{services}"),
        (services, endpoints) => format!("@{services}x{endpoints}"),
    }
}

fn to_direct(stage: &StageSamples, arm: Arm) -> Vec<f64> {
    let rates = |arm| stage.figures(arm, Measure::Crr, Target::Last, Figure::Rate);
    quotients(&rates(arm), &rates(Arm::Direct))
}

/// Round by round.
fn quotients(values: &[f64], others: &[f64]) -> Vec<f64> {
    values.iter().zip(others).map(|(value, other)| value / other).collect()
}

fn insert(ratios: &mut BTreeMap<String, Ratio>, name: String, values: &[f64]) {
    ratios.extend(Ratio::of(values).map(|ratio| (name, ratio)));
}
