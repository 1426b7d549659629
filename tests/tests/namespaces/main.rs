//! One Service over two clusters of network namespaces, with the real daemon, programs and packets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod bridge;
mod changes;
mod datagrams;
mod ended;
mod errors;
mod floods;
mod hairpin;
mod handshakes;
mod health;
mod hops;
mod imports;
mod interfaces;
mod large;
mod neighbours;
mod redirect;
mod settings;
mod sockets;
mod spread;
mod stage;
mod tiers;
mod tuples;
mod turns;
mod untouched;
mod without_daemon;
