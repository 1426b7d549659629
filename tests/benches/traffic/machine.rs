//! What it was measured on.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{fs, process::Command, thread};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// As `iptables --version` says it: legacy, or over nf_tables.
    pub(crate) iptables: String,
    pub(crate) nftables: String,
    pub(crate) kube_proxy: String,
}

pub(crate) fn describe() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let kib = field(&read("/proc/meminfo")?, "MemTotal");
    let kib: u64 = kib.split(' ').next().unwrap_or_default().parse().context("MemTotal")?;
    let kube_proxy = mcs_proxy_tests::programs::kubernetes("kube-proxy")?;
    Ok(Machine {
        processor: field(&read("/proc/cpuinfo")?, "model name"),
        cores: thread::available_parallelism()?.get(),
        memory_gib: kib.div_ceil(1 << 20),
        // The version alone: what follows a hyphen is whoever built it.
        kernel: read("/proc/sys/kernel/osrelease")?.trim().split('-').next().unwrap_or_default().to_owned(),
        iptables: version(Command::new("iptables"))?,
        nftables: version(Command::new("nft"))?,
        kube_proxy: version(Command::new(kube_proxy))?,
    })
}

fn version(mut program: Command) -> Result<String> {
    let output = program.arg("--version").output().with_context(|| format!("{program:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
