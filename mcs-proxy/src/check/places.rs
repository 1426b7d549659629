//! Where pins and programs go.

use crate::{
    dataplane::{
        pins::{PinDir, PinsError},
        sockets::default_cgroup,
        sys,
    },
    observe::line::Line,
};
use std::path::Path;

pub(super) fn bpffs(pin_dir: &PinDir) -> Line {
    let root = pin_dir.root().display();
    match pin_dir.check() {
        Ok(()) => Line::ok("bpffs", format!("{root} is on a BPF file system")),
        Err(PinsError::NotBpffs { .. }) => Line::failed(
            "bpffs",
            format!("{root} is not on a BPF file system"),
            "on the node (in a pod: on the host, and mounted from there): mount -t bpf bpf /sys/fs/bpf",
        ),
        Err(error) => {
            Line::failed("bpffs", error.to_string(), "name a directory on a BPF file system by --pin-dir")
        }
    }
}

pub(super) fn cgroup2(cgroup: Option<&Path>) -> Line {
    let found = match cgroup.map_or_else(default_cgroup, |path| Ok(path.to_owned())) {
        Ok(found) => found,
        Err(error) => {
            return Line::warning(
                "cgroup2",
                error.to_string(),
                "packets are served all the same; host-network processes are left to kube-proxy until then",
            );
        }
    };
    match sys::is_cgroup2(&found) {
        Ok(true) => Line::ok("cgroup2", found.display().to_string()),
        Ok(false) | Err(_) => Line::warning(
            "cgroup2",
            format!("{} is not on a cgroup2 file system", found.display()),
            "`findmnt -t cgroup2` lists those; name one by --cgroup",
        ),
    }
}
