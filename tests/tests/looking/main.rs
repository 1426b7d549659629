//! The commands that look at flows and counters, beside real traffic, with a daemon and without.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod command_line;
mod flows;
mod monitor;
mod orders;
mod schemas;
mod top;
mod watcher;

#[path = "../namespaces/stage.rs"]
#[expect(dead_code, reason = "shared with the tests of traffic, which need more of it")]
mod stage;
