//! What is measured, and for how long.

use crate::{
    Options,
    arm::Arm,
    samples::{Measure, Target},
};
use std::time::Duration;

/// The size at which a conversation is measured that concerns no Service.
const BYSTANDERS_AT: u32 = 10_000;

pub(crate) struct Plan {
    pub(crate) quick: bool,
    arms: Vec<Arm>,
    pub(crate) sizes: Vec<Size>,
    /// That count; one more, before them, warms up.
    pub(crate) rounds: u32,
}

/// How much the API server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) services: u32,
    /// Of each Service.
    pub(crate) endpoints: u32,
}

impl Plan {
    /// The quick one takes less than three minutes, the other less than half an hour.
    pub(crate) fn new(options: &Options) -> Self {
        let quick = options.quick;
        let sizes: &[(u32, u32)] = if quick {
            &[(1, 1), (1000, 1)]
        } else {
            &[
                (1, 1),
                (100, 1),
                (1000, 1),
                (10_000, 1),
                (50_000, 1),
                (1, 10),
                (100, 10),
                (1000, 10),
                (10_000, 10),
            ]
        };
        let is_asked = |services: u32| options.services.is_empty() || options.services.contains(&services);
        let sizes = sizes.iter().map(|&(services, endpoints)| Size { services, endpoints });
        let arms = Arm::ALL.into_iter().filter(|arm| options.arms.is_empty() || options.arms.contains(arm));
        Self {
            quick,
            arms: arms.collect(),
            sizes: sizes.filter(|size| is_asked(size.services)).collect(),
            rounds: options.rounds.unwrap_or(if quick { 5 } else { 11 }),
        }
    }

    /// What stands at a size. The empty programs know no Services: they are measured beside the fewest.
    pub(crate) fn arms_at(&self, size: &Size) -> Vec<Arm> {
        let least = self.sizes.first();
        self.arms.iter().copied().filter(|arm| *arm != Arm::Empty || least == Some(size)).collect()
    }

    /// What every round at a size consists of.
    pub(crate) fn measures(&self, size: &Size) -> Vec<(Measure, Target)> {
        let mut all = vec![
            (Measure::Crr, Target::Last),
            (Measure::Rr, Target::Last),
            (Measure::Throughput, Target::Last),
        ];
        if !self.quick && size.services > 1 {
            all.extend([(Measure::Crr, Target::First), (Measure::Crr, Target::Middle)]);
        }
        if size.services == BYSTANDERS_AT {
            all.push((Measure::Crr, Target::Bystander));
        }
        all
    }

    pub(crate) fn slice(&self, measure: Measure) -> Duration {
        let millis = match measure {
            Measure::Crr => 250,
            Measure::Rr => 150,
            Measure::Throughput => 200,
        };
        Duration::from_millis(if self.quick { millis } else { millis * 3 / 2 })
    }

    /// How long the rounds at a size take.
    pub(crate) fn measuring(&self, size: &Size) -> Duration {
        let round: Duration = self.measures(size).into_iter().map(|(measure, _)| self.slice(measure)).sum();
        round * self.arms_at(size).len() as u32 * (self.rounds + 1)
    }

    /// About how long it takes until everything stands, on a machine of two cores.
    pub(crate) fn setting_up(size: &Size) -> Duration {
        Duration::from_millis(20_000 + u64::from(size.services) * u64::from(5 + size.endpoints))
    }
}
