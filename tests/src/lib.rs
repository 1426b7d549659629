//! Harness: clusters of network namespaces with a daemon a node, and what speaks to them.
//!
//! It knows mcs-proxy only as a program: its command line, its manifests, its JSON.

pub mod api;
mod beneath;
pub mod bpf;
mod bridge;
mod cgroup;
mod cleanup;
pub mod client;
pub mod cluster;
pub mod crd;
mod daemon;
mod etcd;
mod figures;
mod gate;
pub mod http;
pub mod interrupt;
pub mod karmada;
mod kubelet;
mod kubeproxy;
pub mod lookups;
mod namespace;
pub mod netns;
pub mod programs;
pub mod proxy;
mod sys;
mod world;

pub use beneath::Beneath;
pub use bridge::BRIDGE;
pub use cgroup::Cgroup;
pub use cleanup::{kept_runs, stop_if_interrupted, tear_down_kept};
pub use daemon::{Daemon, EndpointRow, ServiceRow};
pub use figures::{LONG, figure, is_long};
pub use gate::{Gate, Rule};
pub use kubeproxy::{KubeProxy, ProxyMode};
pub use namespace::{Namespace, Process};
pub use sys::{PacketSocket, ProcessorTime, processor_time};
pub use world::{FABRIC, Lifetime, Node, POD_PORT, Pod, World};
