//! What the kernel has, and what it lets us do.

use super::fs_read;
use crate::{
    dataplane::{
        loader::{self, Refusal},
        sock_diag::{SockDiag, SockDiagError},
        sockets::{Place, SocketsError},
        sys::{self, TcxHook},
    },
    observe::line::Line,
};
use aya::util::KernelVersion;
use std::path::Path;

/// TCX; below it clsact.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

pub(super) fn version() -> Line {
    let release = fs_read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match KernelVersion::current() {
        Ok(found) if found < loader::MINIMUM_KERNEL.1 => Line::failed(
            "kernel",
            format!("Linux {release} is too old"),
            format!("Linux {} or later is needed, 6.6 or later is best", loader::MINIMUM_KERNEL.0),
        ),
        Ok(found) if found < TCX => Line::warning(
            "kernel",
            format!("Linux {release}: clsact stands in for TCX"),
            "Linux 6.6 or later has TCX, whose programs are exchanged without a gap",
        ),
        Ok(_) => Line::ok("kernel", format!("Linux {release}")),
        Err(error) => Line::warning("kernel", error.to_string(), "5.12 or later is needed"),
    }
}

pub(super) fn capabilities() -> Line {
    match loader::missing_capabilities() {
        Ok(missing) if missing.is_empty() => {
            Line::ok("capabilities", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are there")
        }
        Ok(missing) => Line::failed(
            "capabilities",
            Refusal::Capabilities { missing }.to_string(),
            "what follows is told as far as it can be seen without them",
        ),
        Err(error) => Line::failed("capabilities", error.to_string(), "run as root"),
    }
}

pub(super) fn btf() -> Line {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Line::ok("BTF", "/sys/kernel/btf/vmlinux is there");
    }
    Line::warning(
        "BTF",
        "/sys/kernel/btf/vmlinux is not there",
        "the programs do without it; bpftool shows less. In a pod mount /sys; else build with CONFIG_DEBUG_INFO_BTF",
    )
}

/// Asked of the loopback interface, which every network namespace has.
pub(super) fn packet_hook() -> Line {
    const LOOPBACK: u32 = 1;
    match sys::tcx_query(LOOPBACK, TcxHook::Ingress) {
        Ok(_) => Line::ok("packet hook", "TCX"),
        Err(error) if error.errno() == Some(libc::EINVAL) => Line::warning(
            "packet hook",
            "no TCX: clsact filters stand in",
            "Linux 6.6 or later, with CONFIG_NET_XGRESS",
        ),
        Err(error) => Line::warning("packet hook", error.to_string(), "run as root, or with CAP_NET_ADMIN"),
    }
}

pub(super) fn cgroup_hooks(place: &Result<Place, SocketsError>) -> Line {
    const PART: &str = "cgroup hooks";
    match place {
        Ok(_) => Line::ok(PART, "connect, sendmsg, recvmsg and getpeername, of both families"),
        Err(error @ (SocketsError::NoHook { .. } | SocketsError::NoCookie(_))) => Line::warning(
            PART,
            error.to_string(),
            "packets are served all the same; say --socket-path off, or take Linux 5.14 or later with CONFIG_CGROUP_BPF",
        ),
        Err(error) => Line::warning(PART, "not looked at", error.to_string()),
    }
}

pub(super) fn set_retval() -> Line {
    if KernelVersion::current().is_ok_and(|kernel| kernel >= loader::SET_RETVAL_KERNEL) {
        return Line::ok("bpf_set_retval", "a refused call fails with ECONNREFUSED");
    }
    Line::warning(
        "bpf_set_retval",
        "not there: a call to a Service without endpoints fails with EPERM",
        "Linux 5.18 or later has it",
    )
}

pub(super) fn sock_destroy() -> Line {
    const PART: &str = "CONFIG_INET_DIAG_DESTROY";
    match SockDiag::open().and_then(|diag| diag.can_close()) {
        Ok(()) => Line::ok(PART, "connected UDP sockets whose endpoint is gone can be closed"),
        Err(error @ SockDiagError::Unsupported { .. }) => Line::warning(
            PART,
            error.to_string(),
            "host processes with connected UDP sockets must notice by themselves that an endpoint is gone",
        ),
        Err(error) => Line::warning(PART, error.to_string(), "run as root, or with CAP_NET_ADMIN"),
    }
}

pub(super) fn clock_source() -> Line {
    clock_source_of(fs_read("/sys/devices/system/clocksource/clocksource0/current_clocksource").as_deref())
}

fn clock_source_of(found: Option<&str>) -> Line {
    match found {
        Some(slow @ ("hpet" | "acpi_pm" | "jiffies" | "pit")) => Line::warning(
            "clock source",
            format!("{slow}, which is slow to read"),
            "everything on the node that asks for the time pays for it, connection tracking included; see why the \
             kernel gave up tsc (`dmesg | grep -i clocksource`)",
        ),
        Some(other) => Line::ok("clock source", other),
        None => Line::ok("clock source", "not told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line::Level;

    #[test]
    fn a_slow_clock_is_warned_of() {
        for (found, level) in [
            (Some("tsc"), Level::Ok),
            (Some("kvm-clock"), Level::Ok),
            (Some("hpet"), Level::Warning),
            (None, Level::Ok),
        ] {
            assert_eq!(clock_source_of(found).level, level, "{found:?}");
        }
    }
}
