//! `cargo xtask image --boot`: the program on Debian's kernels for its processor, in QEMU. A node with pods, in the guest's
//! memory, loads the eBPF programs, calls a Service and looks at what comes back; `init.sh` is all of it.

mod initramfs;

use super::Architecture;
use crate::{
    run::{Beside, command, logged, say},
    setup::{self, Guest, Kernel},
};
use anyhow::{Context, Result, bail};
use initramfs::Initramfs;
use std::{fs, path::Path};

/// What the guest says last.
const WELL: &str = "all is well";
const INIT: &str = include_str!("init.sh");
/// What pods, filters and socket diagnosis take where it is not built in, in this order.
const MODULES: [&str; 6] = ["veth", "sch_ingress", "cls_bpf", "inet_diag", "tcp_diag", "udp_diag"];
/// The Service that is called, with an endpoint in either pod.
const MANIFESTS: &str = "deploy/examples/demo-member2/serve.yaml";

/// # Errors
/// On one of the kernels something is not as it should be: the end of what the guest printed has then been shown.
pub(super) fn run(workspace: &Path, arch: Architecture, program: &Path) -> Result<()> {
    let guest = setup::guest(workspace, arch)?;
    for kernel in &guest.kernels {
        boot(workspace, arch, program, &guest, kernel).with_context(|| kernel.release.clone())?;
    }
    Ok(())
}

fn boot(workspace: &Path, arch: Architecture, program: &Path, guest: &Guest, kernel: &Kernel) -> Result<()> {
    let mut files = Initramfs::default();
    for folder in ["bin", "proc", "sys", "dev", "run", "modules", "manifests"] {
        files.folder(folder)?;
    }
    files.file("init", 0o755, INIT.as_bytes())?;
    files.file("manifests/serve.yaml", 0o644, &read(&workspace.join(MANIFESTS))?)?;
    files.file("bin/busybox", 0o755, &read(&guest.busybox)?)?;
    files.file("bin/mcs-proxy", 0o755, &read(program)?)?;
    for (number, module) in MODULES.iter().enumerate() {
        if let Some(path) = kernel.module(module)? {
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            files.file(&format!("modules/{number}.{ending}"), 0o644, &read(&path)?)?;
        }
    }
    let archive = setup::log(workspace, "boot").with_extension("cpio");
    fs::write(&archive, files.finish()?).with_context(|| archive.display().to_string())?;

    let (machine, console) = match arch {
        Architecture::Amd64 => (["-machine", "q35", "-cpu", "max"], "ttyS0"),
        Architecture::Arm64 => (["-machine", "virt", "-cpu", "cortex-a72"], "ttyAMA0"),
    };
    // A guest that hangs would for ever.
    let mut qemu = command("timeout");
    qemu.args(["--kill-after=5", "600", guest.qemu])
        .args(machine)
        .args("-smp 2 -m 2048 -nodefaults -no-reboot -display none -serial stdio".split(' '))
        .args(["-append", &format!("console={console} quiet panic=-1")])
        .args([Path::new("-kernel"), &kernel.image, Path::new("-initrd"), &archive]);
    let log = setup::log(workspace, &format!("boot-{}", kernel.release));
    logged(&log, &format!("Booting Linux {} ({})", kernel.release, arch.oci()), &mut qemu, Beside::Nothing)?;
    let printed = String::from_utf8_lossy(&read(&log)?).into_owned();
    fs::remove_file(&archive)?;
    judge(&printed).with_context(|| format!("see {}", log.display()))
}

fn judge(printed: &str) -> Result<()> {
    for line in printed.lines().filter(|line| line.starts_with("== ")) {
        say(line.trim_end());
    }
    if printed.lines().any(|line| line.trim_end().ends_with(WELL)) {
        return Ok(());
    }
    let failed = printed.lines().find(|line| line.starts_with("FAILED: "));
    bail!("{}", failed.unwrap_or("FAILED: the guest did not come to its end").trim_end())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_fails_or_does_not_come_to_its_end_is_no_success() {
        assert!(INIT.contains(&format!("say \"{WELL}\"\n")));
        judge("== after 3 s: Linux\r\n== after 9 s: all is well\r\n").unwrap();
        let failed = judge("== after 3 s: Linux\r\nFAILED: insmod\r\n").unwrap_err().to_string();
        assert_eq!(failed, "FAILED: insmod");
        let ended = judge("Kernel panic - not syncing\r\n").unwrap_err().to_string();
        assert_eq!(ended, "FAILED: the guest did not come to its end");
    }
}
