//! What `mcs-proxy check` looks at: whether this node can run a daemon, and what stands in its way. It changes nothing and
//! needs no daemon; what it lacks the rights to see, it says.

mod capacity;
mod hooks;
mod kernel;
mod others;
mod pinned;
mod places;
mod sysctls;

use crate::{
    dataplane::{pins::PinDir, sockets},
    observe::{catalog::Catalog, line::Line},
};
use mcs_proxy_ebpf::abi::MapSizes;
use std::{fs, path::Path};

/// What a daemon would be started with.
#[derive(Debug)]
pub struct Intent<'a> {
    pub pin_dir: &'a PinDir,
    pub run_dir: &'a Path,
    pub sizes: &'a MapSizes,
    pub cgroup: Option<&'a Path>,
}

/// A line for each thing, in the order in which one would put things right.
#[must_use]
pub fn check(intent: &Intent<'_>) -> Vec<Line> {
    let catalog = Catalog::read(intent.run_dir).unwrap_or_default();
    let place = sockets::judge(intent.cgroup);
    let mut lines = vec![kernel::version(), kernel::capabilities(), kernel::btf()];
    lines.extend([kernel::packet_hook(), kernel::cgroup_hooks(&place), kernel::set_retval()]);
    lines.extend([kernel::sock_destroy(), kernel::clock_source()]);
    lines.extend([places::bpffs(intent.pin_dir), places::cgroup2(&place)]);
    lines.extend(sysctls::lines(&fs_read));
    lines.extend(pinned::lines(intent.pin_dir, intent.run_dir, intent.sizes));
    lines.push(capacity::memory(intent.pin_dir, intent.sizes));
    lines.extend([hooks::on_interfaces(intent.pin_dir), hooks::on_cgroup(intent.pin_dir, &place)]);
    lines.extend([others::kube_proxy(), others::cilium()]);
    lines.push(others::local_imports(&catalog));
    lines
}

/// The content of a file of /proc or /sys, trimmed.
fn fs_read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
