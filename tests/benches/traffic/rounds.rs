//! The rounds at one size.

use crate::{
    plan::{Plan, Size},
    progress::Progress,
    samples::{Sample, StageSamples},
    stage::Stage,
};
use anyhow::Result;
use std::time::Duration;

/// Measures and takes everything down.
pub(crate) fn measure(
    plan: &Plan,
    size: &Size,
    mut stage: Stage,
    progress: &mut Progress,
) -> Result<StageSamples> {
    stage.pause(true)?;
    let mut all = StageSamples::new(size);
    let estimated = plan.measuring(size) / (plan.rounds + 1);
    // Round 0 warms up.
    for round in 0..=plan.rounds {
        let what = format!("round {round} of {}", plan.rounds);
        progress.step(size, &what, if round == 0 { Duration::ZERO } else { estimated });
        for (measure, target) in plan.measures(size) {
            for index in order(round, stage.lanes.len()) {
                let lane = &mut stage.lanes[index];
                let slice = lane.measure(measure, target, plan.slice(measure))?;
                if round > 0 {
                    all.samples.push(Sample { round, arm: lane.arm, measure, target, slice });
                }
            }
        }
    }
    stage.lanes.iter().try_for_each(|lane| lane.check())?;
    stage.pause(false)?;
    Ok(all)
}

/// The arms from one that is another each round, and every other round backwards: none always follows the same one.
fn order(round: u32, arms: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..arms).collect();
    order.rotate_left(round as usize % arms);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}
