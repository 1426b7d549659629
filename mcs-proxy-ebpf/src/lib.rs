//! What the daemon and the eBPF programs have in common: the layout of the maps ([`abi`]) and the packet logic that
//! needs no kernel ([`select`], [`checksum`]). Built for the host it is tested there; built for the BPF target it
//! is part of the programs in `main.rs`.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod checksum;
pub mod select;
