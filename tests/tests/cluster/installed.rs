//! A cluster with the chart installed on it, and something to call.

use anyhow::{Context, Result};
use mcs_proxy_tests::{
    ProxyMode,
    cluster::{Cluster, ClusterOptions, is_ready},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(super) const SERVE: &str = include_str!("../../../deploy/examples/cluster/serve.yaml");

const DAEMONS: &str = "/api/v1/namespaces/mcs-proxy/pods?labelSelector=app.kubernetes.io/name%3Dmcs-proxy";

/// A cluster takes the whole of a small machine: one at a time.
static ONE: Mutex<()> = Mutex::new(());

pub(super) struct Installed {
    pub(super) cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

impl Installed {
    pub(super) fn start() -> Result<Self> {
        let options =
            ClusterOptions { kube_proxy: Some(ProxyMode::Nftables), dns: true, ..Default::default() };
        Self::start_on(options, "")
    }

    /// Also with these values, each with a comma before it.
    pub(super) fn start_on(options: ClusterOptions, values: &str) -> Result<Self> {
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let installed = Self { cluster: Cluster::start(options)?, _turn: turn };
        installed.install(values)?;
        installed.cluster.apply(SERVE)?;
        installed.cluster.wait_for_rollout("default", "deployment/serve")?;
        installed.wait_for_pod("client")?;
        Ok(installed)
    }

    fn install(&self, values: &str) -> Result<()> {
        let values = format!("clusterName=member1,socketPath.cgroup={}{values}", Cluster::CGROUP);
        let chart = chart();
        let mcs_proxy = ["install", "mcs-proxy", &chart, "--namespace", "mcs-proxy"];
        self.cluster.helm(&[&mcs_proxy[..], &["--create-namespace", "--set", &values]].concat())?;
        self.cluster.wait_for_rollout("mcs-proxy", "daemonset/mcs-proxy")
    }

    /// With these values beside those that it has.
    pub(super) fn upgrade(&self, values: &str) -> Result<()> {
        let chart = chart();
        let mcs_proxy = ["upgrade", "mcs-proxy", &chart, "--namespace", "mcs-proxy"];
        self.cluster.helm(&[&mcs_proxy[..], &["--reuse-values", "--set", values]].concat())?;
        self.cluster.wait_for_rollout("mcs-proxy", "daemonset/mcs-proxy")
    }

    pub(super) fn wait_for_pod(&self, name: &str) -> Result<Value> {
        self.cluster.wait_for(name, &format!("/api/v1/namespaces/default/pods/{name}"), is_ready)
    }

    /// The daemons' pods, by node.
    pub(super) fn daemons(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.cluster.get(DAEMONS)?;
        let pods = pods["items"].as_array().context("no pods")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = |pod: &Value| (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["name"]));
        Ok(pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(named).collect())
    }

    /// What a command of the daemon's own prints there.
    pub(super) fn mcs_proxy(&self, pod: &str, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", "mcs-proxy", "exec", pod, "--", "mcs-proxy"], arguments].concat())
    }

    /// Where the Service `serve` is called.
    pub(super) fn vip(&self) -> Result<SocketAddr> {
        let service = self.cluster.get("/api/v1/namespaces/default/services/serve")?;
        let address = service["spec"]["clusterIP"].as_str().with_context(|| service.to_string())?;
        Ok(SocketAddr::new(address.parse()?, 80))
    }

    /// Waits until the daemons of all nodes have three endpoints for it.
    pub(super) fn wait_until_served(&self) -> Result<()> {
        let daemons = self.daemons()?;
        self.cluster.until("`serve` is served on every node", || {
            let mut all = true;
            for pod in daemons.values() {
                all &= self.endpoints(pod)? == 3;
            }
            Ok(all)
        })
    }

    /// The node that the pod `client` is on.
    pub(super) fn clients_node(&self) -> Result<String> {
        let pod = self.cluster.get("/api/v1/namespaces/default/pods/client")?;
        Ok(pod["spec"]["nodeName"].as_str().with_context(|| pod.to_string())?.to_owned())
    }

    pub(super) fn clients_daemon(&self) -> Result<String> {
        let node = self.clients_node()?;
        self.daemons()?.remove(&node).with_context(|| format!("no daemon on {node}"))
    }

    /// Waits until a daemon has logged this.
    pub(super) fn wait_for_log(&self, daemon: &str, words: &str) -> Result<()> {
        self.cluster
            .until(words, || Ok(self.cluster.kubectl(&["-n", "mcs-proxy", "logs", daemon])?.contains(words)))
    }

    /// How many pods of the Service are on a node.
    pub(super) fn serving_on(&self, node: &str) -> Result<usize> {
        let pods = self.cluster.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dserve")?;
        let on_it = |pod: &&Value| pod["spec"]["nodeName"] == node && is_ready(pod);
        Ok(pods["items"].as_array().into_iter().flatten().filter(on_it).count())
    }

    /// How many endpoints of the Service a daemon has in its maps.
    pub(super) fn endpoints(&self, daemon: &str) -> Result<usize> {
        let row = self.row(daemon)?;
        let endpoints = row["endpoints"].as_array().into_iter().flatten();
        Ok(endpoints.filter(|endpoint| endpoint["in_maps"] == true).count())
    }

    /// How many flows a daemon's node has begun to the Service.
    pub(super) fn flows(&self, daemon: &str) -> Result<u64> {
        let row = self.row(daemon)?;
        row["counters"]["flows"].as_u64().with_context(|| format!("`serve` is not served: {row}"))
    }

    fn row(&self, daemon: &str) -> Result<Value> {
        let rows = self.mcs_proxy(daemon, &["services", "default/serve", "-o", "json"])?;
        Ok(serde_json::from_str::<Value>(&rows)?[0].take())
    }

    /// Calls the Service from a pod, so many times, and returns how often each endpoint answered.
    pub(super) fn calls(&self, pod: &str, host: &str, times: u32) -> Result<BTreeMap<IpAddr, u32>> {
        let said =
            self.cluster.kubectl(&["exec", pod, "--", "hello-pod", "call", host, &times.to_string()])?;
        answers(&said)
    }
}

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart").display().to_string()
}

pub(super) fn answers(said: &str) -> Result<BTreeMap<IpAddr, u32>> {
    let mut tally = BTreeMap::new();
    for line in said.lines() {
        *tally.entry(mcs_proxy_tests::client::who(line)?).or_default() += 1;
    }
    Ok(tally)
}
