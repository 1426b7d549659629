//! Our own programming: from what every Service leads to, to maps that hold it.
//!
//! It begins where `nft -f` and `iptables-restore` begin: they are given rules that are worked out, and we are given the
//! slots of every frontend. What is timed is all that the daemon does from there on, the comparison with what the maps hold
//! and the waiting for a grace period included. The maps are made anew each time, as the daemon makes them at its first start.

#[path = "../../tests/dataplane/place.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with the tests of the dataplane, which need more of it and may panic"
)]
mod place;

use crate::objects;
use anyhow::{Context, Result, ensure};
use mcs_proxy::{
    dataplane::{Dataplane as _, kernel::KernelDataplane, table::Table},
    desired::{Desired, Frontend, FrontendKey},
    model::NamespacedName,
};
use mcs_proxy_ebpf::abi::{Algorithm, MapName, MapSizes, Protocol};
use mcs_proxy_tests::processor_time;
use place::Place;
use serde::{Deserialize, Serialize};
use std::{fs, os::fd::AsRawFd as _, sync::Arc, thread, time::Instant};

/// As the daemon makes them with `--max-slots 1048576`, but for the flows, which nothing here opens.
const SIZES: MapSizes = MapSizes { elements: 1 << 20, flows: 1024, transient: 1024, ..MapSizes::DEFAULT };

/// One sync, into maps that are empty.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sync {
    pub(crate) seconds: f64,
    /// Of them, comparing and laying out.
    pub(crate) plan_seconds: f64,
    /// Processor time of the writing: all of it, and the kernel's share.
    pub(crate) write_cpu_seconds: f64,
    pub(crate) write_kernel_seconds: f64,
    /// One Service's endpoint is another then.
    pub(crate) change_seconds: f64,
}

/// Measures once. On a thread of its own, as a network namespace ends with it.
pub(crate) fn sync(services: u32) -> Result<Sync> {
    let measured = thread::spawn(move || measure(services)).join();
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn measure(services: u32) -> Result<Sync> {
    let place = Place::new("sync");
    drop(place.load_with(&SIZES));
    let mut maps = KernelDataplane::open(&place.pins)?;
    let mut table = Table::recover(&maps.dump()?);
    let mut desired = desired(services, 0);

    let start = Instant::now();
    let plan = table.sync(&desired);
    let plan_seconds = start.elapsed().as_secs_f64();
    ensure!(plan.rejected.is_empty(), "{:?}", plan.rejected);
    let before = processor_time()?;
    maps.run(&plan.transaction)?;
    let after = processor_time()?;
    let seconds = start.elapsed().as_secs_f64();

    let (key, frontend) = self::desired(1, 1).pop_first().context("no frontend")?;
    desired.insert(key, frontend.clone());
    let start = Instant::now();
    let plan = table.plan(&[(key, frontend)].into(), &std::collections::BTreeSet::new());
    maps.run(&plan.transaction)?;
    let change_seconds = start.elapsed().as_secs_f64();

    ensure!(
        Table::recover(&maps.dump()?).sync(&desired).transaction.is_empty(),
        "the maps hold something else"
    );
    Ok(Sync {
        seconds,
        plan_seconds,
        write_cpu_seconds: (after.all - before.all).as_secs_f64(),
        write_kernel_seconds: (after.kernel - before.kernel).as_secs_f64(),
        change_seconds,
    })
}

fn desired(services: u32, change: u32) -> Desired {
    let frontend = |service| {
        let key =
            FrontendKey { vip: objects::vip(service).into(), port: objects::PORT, protocol: Protocol::Tcp };
        let slots = objects::endpoints(service, change).map(|pod| (pod, objects::POD_PORT).into()).collect();
        let frontend = Frontend {
            service: NamespacedName::new("default", objects::name(service)),
            port_name: "".into(),
            algorithm: Algorithm::RoundRobin,
            affinity_seconds: 0,
            packets_only: false,
            probe: None,
            watched: Vec::new(),
            dropped: Vec::new(),
            owns_vip: true,
            used: objects::ENDPOINTS as usize,
            fingerprint: 0,
            slots,
            serving: Vec::new(),
        };
        (key, Arc::new(frontend))
    };
    (0..services).map(frontend).collect()
}

/// Bytes of kernel memory that the maps take for each of their entries, as the kernel accounts for them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Of an endpoint: its slot and its state.
    pub(crate) endpoint: f64,
    /// What it is counted in, on all processors together.
    pub(crate) counters: f64,
    pub(crate) processors: usize,
}

pub(crate) fn memory() -> Result<Memory> {
    let measured = thread::spawn(measure_memory).join();
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn measure_memory() -> Result<Memory> {
    let place = Place::new("memory");
    drop(place.load_with(&SIZES));
    let each = |map: MapName| -> Result<f64> {
        let fd = place.pins.open(map, mcs_proxy::dataplane::sys::Access::ReadOnly)?;
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes: u64 = bytes.context("no memlock")?.trim().parse()?;
        Ok(bytes as f64 / f64::from(SIZES.of(map)))
    };
    Ok(Memory {
        endpoint: each(MapName::Backends)? + each(MapName::BackendState)?,
        counters: each(MapName::BackendCounters)?,
        processors: aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?,
    })
}
