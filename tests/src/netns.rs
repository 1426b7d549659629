//! A network namespace for the calling thread alone: for tests that need interfaces, but no cluster.

use crate::{namespace::run, sys};
use anyhow::Result;
use std::process::Command;

/// Moves the calling thread into a new network namespace, which ends with the thread. What it starts is in there too.
///
/// # Errors
/// This takes root.
pub fn enter_new() -> Result<()> {
    sys::enter_new_network_namespace()?;
    run(Command::new("ip").args(["link", "set", "lo", "up"])).map(drop)
}

/// Adds a pair of veths and returns the index of the first.
///
/// # Errors
/// The kernel's.
pub fn add_veth(name: &str, peer: &str) -> Result<u32> {
    run(Command::new("ip").args(["link", "add", name, "type", "veth", "peer", "name", peer]))?;
    index(name)
}

/// The index of an interface here.
///
/// # Errors
/// There is none of that name.
pub fn index(interface: &str) -> Result<u32> {
    Ok(sys::interface_index(interface)?)
}
