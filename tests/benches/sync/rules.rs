//! The rules of a kube-proxy, as text that its own programs load: `nft -f` and `iptables-restore`.

use anyhow::{Context, Result, bail, ensure};
use mcs_proxy_tests::{Node, ProxyMode};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// For what the kernel does after a program has ended: rules that were flushed are freed by a worker.
const SETTLING: Duration = Duration::from_secs(1);

/// A file of rules, and how it is loaded where there are none.
pub(crate) struct Rules {
    pub(crate) mode: ProxyMode,
    file: PathBuf,
}

impl Rules {
    /// What the node has now.
    pub(crate) fn save(node: &Node, mode: ProxyMode, folder: &Path) -> Result<Self> {
        let text = match mode {
            ProxyMode::Nftables => {
                output(node.namespace.command("nft")?.args(["list", "table", "ip", "kube-proxy"]))?
            }
            ProxyMode::Iptables => output(&mut node.namespace.command("iptables-save")?)?,
        };
        let file = folder.join(mode.name());
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(Self { mode, file })
    }

    /// How long the program takes that loads them into a namespace that has no rules.
    pub(crate) fn load(&self, node: &Node) -> Result<Duration> {
        flush(node, self.mode)?;
        let mut command = node.namespace.command(loader(self.mode))?;
        if self.mode == ProxyMode::Nftables {
            // kube-proxy writes to its standard input as well.
            command.args(["-f", "-"]);
        }
        command.stdin(File::open(&self.file)?).stderr(Stdio::piped());
        let start = Instant::now();
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let took = start.elapsed();
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(took)
    }
}

pub(crate) const fn loader(mode: ProxyMode) -> &'static str {
    match mode {
        ProxyMode::Nftables => "nft",
        ProxyMode::Iptables => "iptables-restore",
    }
}

/// Takes every rule away, of both families.
pub(crate) fn flush(node: &Node, mode: ProxyMode) -> Result<()> {
    match mode {
        ProxyMode::Nftables => drop(output(node.namespace.command("nft")?.args(["flush", "ruleset"]))?),
        ProxyMode::Iptables => {
            for (family, table) in ["iptables", "ip6tables"]
                .into_iter()
                .flat_map(|family| ["nat", "filter", "mangle"].map(|table| (family, table)))
            {
                for what in ["--flush", "--delete-chain"] {
                    output(node.namespace.command(family)?.args(["--table", table, what]))?;
                }
            }
        }
    }
    thread::sleep(SETTLING);
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
