//! The chart, and real clusters that it is installed on: what `cargo xtask test cluster` runs.

#[path = "."]
mod cluster {
    mod alone;
    mod chart;
    mod installed;
    mod installing;
    mod kustomized;
    mod leaving;
    mod traffic;
    mod upheaval;
}
