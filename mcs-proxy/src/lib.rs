//! mcs-proxy in user space: from Kubernetes objects to the maps of the eBPF programs, and back to people.
//!
//! ```text
//! source ──Event──▶ model ──▶ desired ──▶ dataplane ──▶ maps
//! ```
//!
//! [`model`], [`desired`] and [`health`] do no I/O. [`dataplane`] alone writes the maps, from a single task ([`daemon`]); the
//! only `unsafe` code is in `dataplane/sys.rs`.

#![deny(unsafe_code)]

pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod desired;
pub mod explain;
pub mod health;
pub mod model;
pub mod observe;
pub mod source;

/// The eBPF programs, as `build.rs` compiled them: an ELF object for the loader. Aligned, because it is parsed in
/// place.
pub static EBPF_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("MCS_PROXY_EBPF_OBJECT"));
