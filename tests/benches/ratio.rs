//! Ratios between what was measured in one round, over all rounds.

use serde::Serialize;

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    /// The lower and the upper quartile.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
}

impl Ratio {
    /// `None`: there were no rounds.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let [median, low, high] = [0.5, 0.25, 0.75].map(|place| quantile(values, place));
        Some(Self { median: median?, low: low?, high: high?, rounds: values.len() })
    }
}

/// Between two values by proportion.
pub(crate) fn quantile(values: &[f64], place: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = place * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(position.floor() as usize)?, sorted.get(position.ceil() as usize)?);
    Some(below + (above - below) * position.fract())
}
