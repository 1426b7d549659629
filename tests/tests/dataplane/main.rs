//! The dataplane's thin edges against this machine's kernel: pins, maps, links, interfaces, flows. Needs root.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod place;
mod swaps;

mod flows;
mod interfaces;
mod interrupted;
mod links;
mod maps;
