//! How a daemon comes to a node, is replaced there, and leaves it.

mod boot;
mod calls;
mod changes;
mod cleanup;
mod clock;
mod disks;
mod faults;
mod fleet;
mod layouts;
mod orphan;
mod restart;
mod reuse;
mod second;
mod sizes;
mod stage;
mod uninstall;
