//! One Service over two clusters of network namespaces, with the real daemon, programs and packets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod changes;
mod spread;
mod stage;
mod tiers;
mod untouched;
