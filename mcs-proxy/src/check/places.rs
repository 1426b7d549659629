//! Where pins and programs go.

use crate::{
    dataplane::{
        pins::{PinDir, PinsError},
        sockets::{Place, SocketsError},
    },
    observe::line::Line,
};
use mcs_proxy_ebpf::abi::SocketScope;

pub(super) fn bpffs(pin_dir: &PinDir) -> Line {
    let root = pin_dir.root().display();
    match pin_dir.check() {
        Ok(()) => Line::ok("bpffs", format!("{root} is on a BPF file system")),
        Err(PinsError::NotBpffs { .. }) => Line::failed(
            "bpffs",
            format!("{root} is not on a BPF file system"),
            "on the node (in a pod: on the host, and mounted from there): mount -t bpf bpf /sys/fs/bpf",
        ),
        Err(PinsError::ReadOnly { .. }) => Line::failed(
            "bpffs",
            format!("{root} is on a BPF file system that is mounted read-only"),
            "what is pinned goes on, but no daemon can start: mount -o remount,rw /sys/fs/bpf (in a pod: mount it without \
             readOnly)",
        ),
        Err(error) => {
            Line::failed("bpffs", error.to_string(), "name a directory on a BPF file system by --pin-dir")
        }
    }
}

pub(super) fn cgroup2(place: &Result<Place, SocketsError>) -> Line {
    const WAY_OUT: &str =
        "packets are served all the same; host-network processes are left to kube-proxy until then";
    match place {
        Ok(place) => match place.remark(SocketScope::Host) {
            None => Line::ok("cgroup2", place.cgroup.display().to_string()),
            Some(remark) => Line::warning("cgroup2", remark, WAY_OUT),
        },
        Err(error) => Line::warning("cgroup2", error.to_string(), WAY_OUT),
    }
}
