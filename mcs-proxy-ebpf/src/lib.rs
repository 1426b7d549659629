//! What the daemon and the eBPF programs have in common: the layout of the maps ([`abi`]) and the packet logic that
//! needs no kernel ([`select`], [`checksum`], [`crc32c`], [`transition`]). Built for the host it is tested there; built for
//! the BPF target it is part of the programs in `main.rs`.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod checksum;
pub mod crc32c;
#[cfg(not(target_arch = "bpf"))]
pub mod model;
pub mod select;
pub mod transition;
