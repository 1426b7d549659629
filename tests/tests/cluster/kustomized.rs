//! The documented overlay, as a person copies it and fills it in; and kubectl's plugin.

use super::installed::Installed;
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{cluster::Cluster, programs};
use serde_json::Value;
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Applies it, and waits until `serve` is served. Returns the overlay's folder.
pub(super) fn apply(installed: &Installed) -> Result<String> {
    let overlay = overlay(&installed.cluster)?.display().to_string();
    installed.cluster.kubectl(&["apply", "-k", &overlay])?;
    installed.cluster.wait_for_rollout("mcs-proxy", "daemonset/mcs-proxy")?;
    installed.wait_until_served()?;
    let daemon = installed.clients_daemon()?;
    let before = installed.flows(&daemon)?;
    let tally = installed.calls("client", "serve.default.svc.cluster.local:80", 30)?;
    let flows = installed.flows(&daemon)? - before;
    ensure!(flows == 30 && tally.values().all(|&count| count == 10), "{flows} of 30 are ours: {tally:?}");
    Ok(overlay)
}

/// `deploy/examples/kustomize` with what this cluster takes: it is hybrid, and asked past its Service.
fn overlay(cluster: &Cluster) -> Result<PathBuf> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let folder = cluster.folder("deploy")?;
    for part in ["base", "examples/kustomize"] {
        let copy = folder.join(part);
        fs::create_dir_all(&copy)?;
        for file in fs::read_dir(deploy.join(part))? {
            let file = file?;
            fs::copy(file.path(), copy.join(file.file_name()))?;
        }
    }
    let overlay = folder.join("examples/kustomize");
    let file = overlay.join("kustomization.yaml");
    let mut text = fs::read_to_string(&file)?;
    let (host, port) = Cluster::API_SERVER;
    for (example, ours) in [
        ("    # - ", "    - "),
        ("    #   ", "      "),
        ("/sys/fs/cgroup/unified", Cluster::CGROUP),
        ("192.0.2.1", &host.to_string()),
        ("\"443\"", &format!("\"{port}\"")),
    ] {
        ensure!(text.contains(example), "no {example:?} in {}", file.display());
        text = text.replace(example, ours);
    }
    fs::write(&file, text)?;
    Ok(overlay)
}

/// A command of kubectl with the plugin beside it, as a person has both in PATH.
pub(super) fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<Command> {
    let folder = cluster.folder("bin")?;
    for (program, name) in
        [(cluster.program("kubectl")?, "kubectl"), (programs::mcs_proxy()?, "kubectl-mcs_proxy")]
    {
        let link = folder.join(name);
        if !link.exists() {
            symlink(program, link)?;
        }
    }
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([folder].into_iter().chain(env::split_paths(&others)))?;
    let mut command = cluster.command("kubectl")?;
    command.args(arguments).env("PATH", path);
    Ok(command)
}

pub(super) fn asked_by_the_plugin(installed: &Installed) -> Result<()> {
    let cluster = &installed.cluster;
    for node in cluster.nodes() {
        let output =
            kubectl(cluster, &["mcs-proxy", "services", "--node", node.name(), "-o", "json"])?.output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        let rows: Value = serde_json::from_slice(&output.stdout).with_context(|| words.into_owned())?;
        ensure!(rows[0]["name"] == "serve", "{rows}");
    }
    let output = kubectl(cluster, &["mcs-proxy", "services", "--node", "node9"])?.output()?;
    let failure = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && failure.contains("there are on: node1, node2"), "{failure}");
    Ok(())
}
