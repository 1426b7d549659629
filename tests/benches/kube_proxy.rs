//! The real kube-proxy of a node, by its own log: when its caches had synced, and when its rules were complete.

use crate::log::{self, Line, Log};
use anyhow::{Context, Result};
use mcs_proxy_tests::{Node, Process, ProxyMode, api::ApiServer, programs};
use std::{fs, time::SystemTime};

const LISTED: &str = "synced\"";
const LIVE: &str = "\"SyncProxyRules";
/// It has rules for the other family as well, of which there are next to none.
const FAMILY: &str = "ipFamily=\"IPv4\"";

pub(crate) struct KubeProxy {
    process: Process,
}

/// From the start of the process on.
pub(crate) struct Started {
    pub(crate) begun: SystemTime,
    pub(crate) listed: Line,
    pub(crate) live: Line,
}

impl KubeProxy {
    /// For a node that the API server knows ([`ApiServer::enter_node`]); waits until all is programmed that is there.
    pub(crate) fn start(node: &Node, api: &ApiServer, mode: ProxyMode) -> Result<(Self, Started)> {
        let kubeconfig = api.kubeconfig().display().to_string();
        let ranges: Vec<_> = node.pod_ranges.iter().map(ToString::to_string).collect();
        let begun = SystemTime::now();
        let process = node.namespace.spawn(
            &format!("{}-kube-proxy", node.namespace.name()),
            &programs::kubernetes("kube-proxy")?,
            &[
                "--v=2",
                "--kubeconfig",
                &kubeconfig,
                "--proxy-mode",
                mode.name(),
                "--cluster-cidr",
                &ranges.join(","),
                "--hostname-override",
                &node.name,
                // These are the machine's, not the namespace's.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ],
        )?;
        let path = process.log();
        // Its first synchronisation may come before it has all: the one that counts begins after the last list.
        let found = log::wait(path, |_| {
            let log = Log::read(path).ok()?;
            let listed = log.last(LISTED, None)?;
            let live = log.first_after([LIVE, FAMILY], listed.at)?;
            Some((listed, live))
        });
        let (listed, live) = found.with_context(|| fs::read_to_string(path).unwrap_or_default())?;
        Ok((Self { process }, Started { begun, listed, live }))
    }

    /// Waits until it has programmed what was written at this time.
    pub(crate) fn wait_for_sync(&self, written: SystemTime) -> Result<Line> {
        log::wait(self.process.log(), |log| log.first_after([LIVE, FAMILY], written))
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}
