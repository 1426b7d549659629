//! The daemon watched from outside: probes, metrics, `status` and `check`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod check;
mod metrics;
mod probes;
mod prometheus;
mod stage;
mod status;
