//! The daemon of a node.

pub mod writer;
