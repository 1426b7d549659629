//! Whole processes against one API server: from their start to all of it programmed, and from one change to it programmed.

use crate::{bulk::Bulk, kube_proxy::KubeProxy, log, objects, rules, samples::Process};
use anyhow::{Context, Result};
use mcs_proxy_tests::{Daemon, Node, ProxyMode, api::ApiServer};
use std::{
    fs, thread,
    time::{Duration, SystemTime},
};

/// Of the changes that are timed for each start.
const CHANGES: u32 = 5;
/// kube-proxy programs once a second at most (`--iptables-min-sync-period`, `--nftables-min-sync-period`): after a longer
/// pause it begins at once.
const PAUSE: Duration = Duration::from_millis(1200);

/// The API server, and what is in it.
pub(crate) struct Cluster<'a> {
    pub(crate) api: &'a ApiServer,
    pub(crate) bulk: &'a Bulk,
    pub(crate) services: u32,
    /// Changes so far.
    pub(crate) changes: u32,
}

impl Cluster<'_> {
    pub(crate) fn ours(&mut self, node: &Node) -> Result<Process> {
        let kubeconfig = self.api.daemon_kubeconfig().display().to_string();
        // A daemon that has never run here makes its maps as well.
        let pins = std::path::Path::new("/sys/fs/bpf").join(node.namespace.name());
        if pins.exists() {
            fs::remove_dir_all(&pins).with_context(|| pins.display().to_string())?;
        }
        let begun = SystemTime::now();
        let arguments = ["--source", "kubernetes", "--kubeconfig", &kubeconfig, "--all-services"];
        let daemon = Daemon::start_with(
            node,
            &[&arguments[..], &["--max-slots", "1048576", "--socket-path", "off"]].concat(),
        )?;
        let text = log::Log::read(daemon.log_path())?;
        let live = text.last("synced", None).context("never synced")?;
        let changes = self.change(|written| {
            let programmed = log::wait(daemon.log_path(), |log| log.last("programmed", Some(written)));
            Ok(programmed.with_context(|| daemon.log())?.since(written))
        })?;
        Ok(Process { start_seconds: live.since(begun).as_secs_f64(), change_seconds: changes })
    }

    pub(crate) fn theirs(&mut self, node: &Node, mode: ProxyMode) -> Result<Process> {
        rules::flush(node, mode)?;
        let (proxy, started) = KubeProxy::start(node, self.api, mode)?;
        let changes = self.change(|written| Ok(proxy.wait_for_sync(written)?.since(written)))?;
        Ok(Process {
            start_seconds: started.live.since(started.begun).as_secs_f64(),
            change_seconds: changes,
        })
    }

    fn change(&mut self, wait: impl Fn(SystemTime) -> Result<Duration>) -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for _ in 0..CHANGES {
            thread::sleep(PAUSE);
            self.changes += 1;
            let service = (self.changes * 7919) % self.services;
            let written = SystemTime::now();
            objects::change(self.bulk, service, 1 + self.changes % 8)?;
            seconds.push(wait(written)?.as_secs_f64());
        }
        Ok(seconds)
    }
}
