//! Interfaces on which no answer shows, in `interfaces.json` in the run directory: for `status` and `services`.

use super::json_file;
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::Path};

/// In the run directory.
pub const FILE: &str = "interfaces.json";

/// An interface that connections are opened from and on which none of their answers comes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentInterface {
    /// In the node's network namespace.
    pub index: u32,
    pub name: String,
    /// Connections without an answer, in the last two minutes.
    pub connections: usize,
    /// How many backends they were for.
    pub backends: usize,
    /// Some of these backends have answered on other interfaces: they are not dead.
    pub answer_elsewhere: bool,
}

/// What the last daemon of this run directory has found out; nothing if none has.
///
/// # Errors
/// The file is there but cannot be read.
pub fn read(run_dir: &Path) -> io::Result<Vec<SilentInterface>> {
    json_file::read(run_dir, FILE)
}

/// Puts this in the place of what was found out before.
///
/// # Errors
/// The run directory cannot be made or written to.
pub fn write(run_dir: &Path, interfaces: &[SilentInterface]) -> io::Result<()> {
    json_file::write(run_dir, FILE, &interfaces)
}

impl fmt::Display for SilentInterface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, connections, backends, answer_elsewhere } = self;
        let plural = if *backends == 1 { "" } else { "s" };
        write!(
            formatter,
            "interface {name} ({index}): none of its pod's {connections} connections to {backends} backend{plural} has \
             been answered there"
        )?;
        formatter.write_str(if *answer_elsewhere {
            "; on other interfaces these backends answer"
        } else {
            "; unless the backends are down"
        })?;
        write!(
            formatter,
            ", another program delivers the answers past ours, by bpf_redirect_peer (Cilium, Calico's eBPF) or by ending \
             the chain before it (TC_ACT_OK): see `bpftool net`; --exclude-interface {name} leaves the pod to kube-proxy"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_says_what_to_do() {
        let silent = SilentInterface {
            index: 12,
            name: "veth0".to_owned(),
            connections: 4,
            backends: 1,
            answer_elsewhere: true,
        };
        let run_dir = std::env::temp_dir().join(format!("mcs-proxy-interfaces-{}", std::process::id()));
        assert_eq!(read(&run_dir).unwrap(), []);
        write(&run_dir, std::slice::from_ref(&silent)).unwrap();
        assert_eq!(read(&run_dir).unwrap(), std::slice::from_ref(&silent));
        std::fs::remove_dir_all(&run_dir).unwrap();
        let said = silent.to_string();
        assert!(
            said.starts_with("interface veth0 (12): none of its pod's 4 connections to 1 backend has"),
            "{said}"
        );
        assert!(said.contains("--exclude-interface veth0"), "{said}");
    }
}
