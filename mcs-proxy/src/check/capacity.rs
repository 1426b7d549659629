//! Whether the maps fit into memory.

use super::fs_read;
use crate::{
    EBPF_OBJECT,
    dataplane::{loader, pins::PinDir, sys::Access},
    observe::line::Line,
};
use mcs_proxy_ebpf::abi::{MapName, MapSizes};
use std::{fs, os::fd::AsRawFd as _};

const MIB: u64 = 1 << 20;

pub(super) fn memory(pin_dir: &PinDir, sizes: &MapSizes) -> Line {
    let available = fs_read("/proc/meminfo").and_then(|text| available(&text));
    // What is pinned has its memory already.
    if let Some(taken) = taken(pin_dir) {
        return Line::ok("memory", format!("the pinned maps take {} MiB", taken / MIB));
    }
    match loader::map_memory(EBPF_OBJECT, sizes) {
        Ok(needed) => judge(needed, available),
        Err(error) => Line::failed("memory", error.to_string(), "please report this"),
    }
}

fn judge(needed: u64, available: Option<u64>) -> Line {
    let says = format!("the maps take up to {} MiB when they are full", needed / MIB);
    match available {
        None => Line::ok("memory", says),
        Some(available) if needed > available => Line::failed(
            "memory",
            format!("{says}, and {} MiB are available", available / MIB),
            "lower --max-flows, --max-slots and --max-backends, or take a larger node",
        ),
        Some(available) if needed > available / 2 => Line::warning(
            "memory",
            format!("{says}, more than half of the {} MiB that are available", available / MIB),
            "lower --max-flows, --max-slots and --max-backends if the node runs short",
        ),
        Some(available) => {
            Line::ok("memory", format!("{says}, of {} MiB that are available", available / MIB))
        }
    }
}

/// `MemAvailable`, in bytes (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the kernel says that the pinned maps take (`memlock` in a descriptor's fdinfo); `None` if none is pinned.
fn taken(pin_dir: &PinDir) -> Option<u64> {
    let of = |map: MapName| {
        let fd = pin_dir.open(map, Access::ReadOnly).ok()?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        info.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse::<u64>().ok()
    };
    let all: Vec<u64> = MapName::ALL.into_iter().filter_map(of).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line::Level;

    #[test]
    fn maps_that_do_not_fit_are_told_with_the_flags_that_lower_them() {
        let meminfo = "MemTotal:       24000 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(available(meminfo), Some(MIB));
        for (needed, level) in [(MIB / 4, Level::Ok), (MIB * 3 / 4, Level::Warning), (2 * MIB, Level::Failed)]
        {
            let line = judge(needed, available(meminfo));
            assert_eq!(line.level, level, "{line:?}");
        }
    }

    #[test]
    fn more_flows_take_more_memory() {
        let memory = |sizes: &MapSizes| loader::map_memory(EBPF_OBJECT, sizes).unwrap();
        let few = memory(&MapSizes { flows: 1024, ..MapSizes::DEFAULT });
        let many = memory(&MapSizes::DEFAULT);
        assert!(many > few + 523_264 * 2 * 100, "{few} {many}");
    }
}
