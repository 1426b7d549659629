//! How a daemon comes to a node, is replaced there, and leaves it.

mod cleanup;
mod second;
mod stage;
mod uninstall;
