//! What Debian's packages provide.

use super::{Purpose, cluster, go, goclient, kube, log, programs};
use crate::{
    ebpf::{Compiler, linker},
    run::{Beside, command, is_root, logged, say, which},
};
use anyhow::{Context, Result, bail};
use std::{collections::BTreeSet, fs, path::Path};

/// Compiles for BPF without a nightly: a current stable compiler, and `core` for the target.
const COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// What building bpf-linker takes.
const LINKER: [&str; 8] = [
    "gcc",
    "libc6-dev",
    "libstdc++-12-dev",
    "libpolly-22-dev",
    "libxml2-dev",
    "libzstd-dev",
    "llvm-22-dev",
    "zlib1g-dev",
];

/// Too old to build Kubernetes, but it fetches one that is not.
const GO: &str = "golang-go";

/// Programs that the demo and the tests call, with their packages.
const DEMO: [(&str, &str); 3] = [("ip", "iproute2"), ("nft", "nftables"), ("curl", "curl")];
const KUBE: [(&str, &str); 4] =
    [("openssl", "openssl"), ("ethtool", "ethtool"), ("iptables-save", "iptables"), ("ping", "iputils-ping")];
const TEST: [(&str, &str); 7] = [
    ("python3", "python3"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("redis-cli", "redis-tools"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("faketime", "faketime"),
];
/// A C compiler for arm64 on other machines, and a C library.
pub(super) const ARM64: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
/// Those that the benchmark's own client is checked with.
const BENCH: [(&str, &str); 2] = [("wrk", "wrk"), ("iperf3", "iperf3")];

/// The packages that are missing for a purpose.
pub(crate) fn packages(workspace: &Path, purpose: Purpose) -> BTreeSet<&'static str> {
    let mut packages = BTreeSet::new();
    if purpose != Purpose::Deny {
        if Compiler::find().is_none() {
            packages.extend(COMPILER);
        }
        if !programs::has_bpf_linker(workspace) {
            packages.extend(missing_for_linker());
        }
    }
    let needs_go = match purpose {
        Purpose::Test => kube::is_missing(workspace) || goclient::is_missing(workspace),
        Purpose::Bench => kube::is_missing(workspace),
        Purpose::Cluster => kube::is_missing(workspace) || cluster::needs_go(workspace),
        Purpose::Build | Purpose::Demo | Purpose::Deny => false,
    };
    if needs_go && go::any().is_none() {
        packages.insert(GO);
    }
    let called: &[&[(&str, &str)]] = match purpose {
        Purpose::Build | Purpose::Deny => &[],
        Purpose::Demo => &[&DEMO],
        Purpose::Test | Purpose::Cluster => &[&DEMO, &KUBE, &TEST],
        Purpose::Bench => &[&DEMO, &KUBE, &BENCH],
    };
    packages.extend(
        called
            .iter()
            .copied()
            .flatten()
            .filter(|(program, _)| which(program).is_none())
            .map(|(_, package)| package),
    );
    packages
}

fn missing_for_linker() -> BTreeSet<&'static str> {
    LINKER.into_iter().filter(|package| !installed(package)).collect()
}

pub(super) fn installed(package: &str) -> bool {
    command("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Installs packages, or says how.
pub(crate) fn ensure(workspace: &Path, packages: &BTreeSet<&'static str>) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.iter().copied().collect::<Vec<_>>().join(" ");
    if let Some(reason) = may_not_install() {
        say(format!("Missing, and not installed because {reason}. On Debian 12, as root:\n"));
        say(format!("  apt-get update\n  apt-get install --no-install-recommends {list}\n"));
        if packages.contains(COMPILER[1]) {
            say(
                "In place of rustc-web and libstd-rust-web-dev-bpf a rustup nightly with its sources will do:\n",
            );
            say("  rustup toolchain install nightly --component rust-src\n");
        }
        if LINKER.iter().any(|package| packages.contains(package)) {
            say(
                "The libraries are for building bpf-linker. One of your own will do too; put it, or a link to it, at\n",
            );
            say(format!("  {}\n", linker(workspace).display()));
        }
        say("Then run the same command again.");
        bail!("tools are missing");
    }

    say(format!("Installing Debian's {list}: {}", why(packages)));
    update(workspace);
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    logged(&log(workspace, "apt-install"), "apt-get install", install.args(packages), Beside::Nothing)
}

/// Unpacks packages into a folder without installing them: as they are services, an install would start them.
pub(super) fn unpack(workspace: &Path, packages: &[&str], folder: &Path, why: &str) -> Result<()> {
    may_unpack(packages, folder, why)?;
    update(workspace);
    fetch(workspace, packages, folder, &[])
}

/// The same with packages for an architecture, as Debian calls it. What apt knows of this machine's stays as it is. Of
/// `PREFIX*SUFFIX` it is the newest one.
pub(super) fn unpack_foreign(
    workspace: &Path,
    architecture: &str,
    packages: &[&str],
    folder: &Path,
    why: &str,
) -> Result<()> {
    may_unpack(packages, folder, why)?;
    let lists = folder.with_extension("lists");
    fs::create_dir_all(lists.join("partial"))?;
    let options = [
        format!("Dir::State::Lists={}", lists.display()),
        format!("Dir::Cache={}", lists.display()),
        format!("APT::Architecture={architecture}"),
        format!("APT::Architectures={architecture}"),
    ];
    let options: Vec<_> = options.iter().flat_map(|option| ["-o", option]).collect();
    let mut update = apt(&options);
    let what = format!("apt-get update for {architecture}");
    logged(&log(workspace, "apt-update"), &what, update.arg("update"), Beside::Nothing)?;
    let packages = packages.iter().map(|package| newest(package, &options)).collect::<Result<Vec<_>>>()?;
    let packages: Vec<_> = packages.iter().map(String::as_str).collect();
    fetch(workspace, &packages, folder, &options)?;
    Ok(fs::remove_dir_all(&lists)?)
}

/// What apt knows under a name with a star in the place of its numbers.
fn newest(package: &str, options: &[&str]) -> Result<String> {
    let Some((prefix, suffix)) = package.split_once('*') else { return Ok(package.to_owned()) };
    let output = command("apt-cache").args(options).args(["pkgnames", prefix]).output()?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    latest(names.lines(), prefix, suffix)
        .map(str::to_owned)
        .with_context(|| format!("Debian has no {package}: apt-cache pkgnames {prefix}: {}", output.status))
}

/// By the numbers between.
fn latest<'a>(names: impl Iterator<Item = &'a str>, prefix: &str, suffix: &str) -> Option<&'a str> {
    let numbers = |name: &str| -> Option<Vec<u64>> {
        let between = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let digits = between.split(|character: char| !character.is_ascii_digit());
        Some(digits.filter_map(|digits| digits.parse().ok()).collect())
    };
    names.filter_map(|name| Some((numbers(name)?, name))).max().map(|(_, name)| name)
}

fn may_unpack(packages: &[&str], folder: &Path, why: &str) -> Result<()> {
    let (list, folder) = (packages.join(" "), folder.display());
    if let Some(reason) = may_not_install() {
        bail!("Debian 12's {list} missing in {folder}, and not unpacked because {reason}");
    }
    say(format!("Unpacking Debian's {list} into {folder}: {why}"));
    Ok(())
}

fn fetch(workspace: &Path, packages: &[&str], folder: &Path, options: &[&str]) -> Result<()> {
    let archives = folder.with_extension("archives");
    fs::create_dir_all(&archives)?;
    let mut download = apt(options);
    download.current_dir(&archives).arg("download").args(packages);
    logged(&log(workspace, "apt-download"), "apt-get download", &mut download, Beside::Nothing)?;
    for archive in fs::read_dir(&archives)? {
        let status = command("dpkg").arg("--extract").arg(archive?.path()).arg(folder).status()?;
        if !status.success() {
            bail!("dpkg --extract: {status}");
        }
    }
    Ok(fs::remove_dir_all(&archives)?)
}

fn apt(arguments: &[&str]) -> std::process::Command {
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
    apt
}

/// A third-party list that is down is no reason to give up: what follows tells.
fn update(workspace: &Path) {
    let log = log(workspace, "apt-update");
    if logged(&log, "apt-get update", &mut apt(&["update"]), Beside::Nothing).is_err() {
        say("apt-get update failed; going on with the package lists that are there");
    }
}

fn why(packages: &BTreeSet<&'static str>) -> String {
    let mut reasons = Vec::new();
    if packages.contains(COMPILER[1]) {
        reasons.push("they compile eBPF programs");
    }
    if LINKER.iter().any(|package| packages.contains(package)) {
        reasons.push("bpf-linker is built with them");
    }
    if packages.contains(ARM64[0]) || packages.contains(ARM64[1]) {
        reasons.push("binaries for arm64 are built with them");
    }
    if packages.contains(GO) {
        reasons.push("the tests' API server and a client of theirs are built with Go");
    }
    if DEMO.iter().chain(&KUBE).chain(&TEST).any(|(_, package)| packages.contains(package)) {
        reasons.push("the demo and the tests call them");
    }
    if BENCH.iter().any(|(_, package)| packages.contains(package)) {
        reasons.push("the benchmark's client is checked with them");
    }
    if packages.iter().any(|package| package.starts_with("qemu-system-")) {
        reasons.push("the image is tried on other kernels with it");
    }
    reasons.join("; ")
}

/// Why packages may not be installed here, if so.
fn may_not_install() -> Option<&'static str> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|other| other.replace('"', "") == line);
    if !has("ID=debian") || !has("VERSION_ID=12") {
        Some("this is not Debian 12")
    } else if which("apt-get").is_none() {
        Some("there is no apt-get")
    } else if !is_root() {
        Some("you are not root")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_several_packages_the_one_with_the_greatest_numbers_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-arm64",
            "linux-image-6.1.0-56-cloud-arm64",
            "linux-image-6.1.0-56-cloud-arm64-dbg",
            "linux-image-6.1.0-57-arm64",
            "linux-image-6.12.117+deb12-cloud-arm64",
        ];
        let latest = |series: &str| {
            super::latest(names.into_iter(), &format!("linux-image-{series}."), "-cloud-arm64")
        };
        assert_eq!(latest("6.1"), Some("linux-image-6.1.0-56-cloud-arm64"));
        assert_eq!(latest("6.12"), Some("linux-image-6.12.117+deb12-cloud-arm64"));
        assert_eq!(latest("6.13"), None);
    }
}
