//! How far it is, on standard error.

use crate::plan::{Plan, Size};
use std::time::{Duration, Instant};

pub(crate) struct Progress {
    start: Instant,
    /// What the whole was estimated to take, and what of it is done.
    whole: Duration,
    done: Duration,
}

impl Progress {
    pub(crate) fn new(plan: &Plan) -> Self {
        let whole = plan.sizes.iter().map(|size| Plan::setting_up(size) + plan.measuring(size)).sum();
        Self { start: Instant::now(), whole, done: Duration::ZERO }
    }

    /// What begins now; `estimated` is what ended with it.
    pub(crate) fn step(&mut self, size: &Size, what: &str, estimated: Duration) {
        self.done += estimated;
        // As slow as it was so far; at the beginning, as estimated.
        let pace = if self.done < self.whole / 10 {
            1.0
        } else {
            self.start.elapsed().as_secs_f64() / self.done.as_secs_f64()
        };
        let left = self.whole.saturating_sub(self.done).as_secs_f64() * pace;
        let Size { services, endpoints } = size;
        eprintln!(
            "{services} Services with {endpoints} endpoints each: {what}; about {} left",
            minutes(left)
        );
    }
}

fn minutes(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}
