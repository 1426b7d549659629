//! The chart, and real clusters that it is installed on: what `cargo xtask test cluster` runs.

#[path = "."]
mod cluster {
    mod chart;
    mod installed;
    mod installing;
    mod traffic;
    mod upheaval;
}
