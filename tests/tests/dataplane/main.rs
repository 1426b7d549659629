//! The dataplane's thin edges against this machine's kernel: pins, maps, links, interfaces, flows. Needs root.

mod place;

mod flows;
mod interfaces;
mod links;
mod maps;
