//! The chart, and a real cluster that it is installed on: what `cargo xtask test cluster` runs.

#[path = "."]
mod cluster {
    mod chart;
    mod install;
}
