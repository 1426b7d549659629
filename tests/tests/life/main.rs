//! How a daemon comes to a node, is replaced there, and leaves it.

mod cleanup;
mod faults;
mod layouts;
mod orphan;
mod second;
mod sizes;
mod stage;
mod uninstall;
