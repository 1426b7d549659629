//! Harness.
pub mod netns;
