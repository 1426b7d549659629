//! Taken off again, under traffic: by `helm uninstall`, and by a person before `kubectl delete -k`.

use super::{
    installed::Installed,
    kustomized,
    traffic::{Report, Traffic},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy::dataplane::{
    sockets::SocketHook,
    sys::{self, TcxHook},
};
use mcs_proxy_tests::{
    Namespace, Process, ProxyMode,
    client::Connection,
    cluster::{ClusterNode, ClusterOptions, Cni},
    programs,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
};

const SETTINGS: &str = "/api/v1/namespaces/mcs-proxy/configmaps/mcs-proxy";
/// What ends within it ends in its first moments.
const DRAIN: &str = ",uninstall.drainSeconds=10";

#[test]
fn helm_uninstall_and_delete_k_lose_nothing_that_ends_within_the_drain_and_leave_the_nodes_clean() {
    let options = ClusterOptions {
        cni: Cni::Ptp,
        kube_proxy: Some(ProxyMode::Iptables),
        dns: true,
        ..Default::default()
    };
    let installed = Installed::start_on(options, DRAIN).unwrap();
    let client = installed.cluster.enter("default", "client").unwrap();
    installed.wait_until_served().unwrap();
    refused_while_a_service_has_no_other_proxy(&installed, &client).unwrap();
    left_by_helm(&installed, &client).unwrap();
    let overlay = kustomized::apply(&installed).unwrap();
    kustomized::asked_by_the_plugin(&installed).unwrap();
    left_by_hand(&installed, &client, &overlay).unwrap();
}

fn refused_while_a_service_has_no_other_proxy(installed: &Installed, client: &Namespace) -> Result<()> {
    const LABEL: &str = "service.kubernetes.io/service-proxy-name";
    let cluster = &installed.cluster;
    cluster.kubectl(&["label", "service", "serve", &format!("{LABEL}=mcs-proxy")])?;
    let failure = cluster.helm(&["uninstall", "mcs-proxy", "--namespace", "mcs-proxy"]).err();
    let failure = format!("{:#}", failure.context("uninstalled, and nobody serves `serve`")?);
    ensure!(failure.contains("nobody would serve default/serve"), "{failure}");
    ensure!(failure.contains(&format!("kubectl label service NAME {LABEL}-")), "{failure}");
    // Nothing was changed, and what the Job said is kept.
    let said = cluster.kubectl(&["-n", "mcs-proxy", "logs", "job/mcs-proxy-uninstall"])?;
    ensure!(said.contains("nobody would serve default/serve"), "{said}");
    let settings = cluster.get(SETTINGS)?;
    ensure!(
        settings["data"].is_null()
            && settings["metadata"]["annotations"].get("mcs-proxy.io/uninstall").is_none(),
        "{settings}"
    );
    installed.wait_until_served()?;
    Connection::open(client, installed.vip()?)?.ask()?;

    cluster.kubectl(&["label", "service", "serve", &format!("{LABEL}-")])?;
    cluster.until("kube-proxy serves it again", || {
        let endpoints = cluster.kube_proxies().iter().map(|proxy| Ok(proxy.endpoints("serve:http")?.len()));
        Ok(endpoints.collect::<Result<Vec<_>>>()? == [3, 3])
    })
}

/// A connection outlives the drain, and is named.
fn left_by_helm(installed: &Installed, client: &Namespace) -> Result<()> {
    let cluster = &installed.cluster;
    let vip = installed.vip()?;
    let mut outlives = Connection::open(client, vip)?;
    outlives.ask()?;
    let said = left_under_traffic(installed, client, || {
        let mut helm = cluster.command("helm")?;
        helm.args(["uninstall", "mcs-proxy", "--namespace", "mcs-proxy"]);
        cluster.meanwhile("helm", helm)
    })?;
    let outlived =
        format!("a connection outlived the drain: TCP {} to {vip} (default/serve)\n", outlives.local()?);
    for words in
        ["2 nodes are told to drain for 10s", &outlived, "has left; no connection outlived the drain"]
    {
        ensure!(said.contains(words), "no {words:?}: {said}");
    }
    ensure!(said.contains("release \"mcs-proxy\" uninstalled"), "{said}");
    // Helm does not wait for the last of it.
    cluster.until("what the chart made is gone", || {
        let kinds = "all,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
        let selector = "app.kubernetes.io/instance=mcs-proxy";
        Ok(cluster.kubectl(&["-n", "mcs-proxy", "get", kinds, "-l", selector, "-o", "name"])?.is_empty())
    })?;
    installed.cluster.nodes().iter().try_for_each(ensure_clean)
}

/// Nothing outlives the drain: it is over before its time.
fn left_by_hand(installed: &Installed, client: &Namespace, overlay: &str) -> Result<()> {
    let cluster = &installed.cluster;
    let left = left_under_traffic(installed, client, || {
        cluster.meanwhile(
            "uninstall",
            kustomized::kubectl(cluster, &["mcs-proxy", "uninstall", "--drain", "60s"])?,
        )
    })?;
    ensure!(left.matches("has left; no connection outlived the drain").count() == 2, "{left}");
    cluster.kubectl(&["delete", "-k", overlay])?;
    let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"])?;
    ensure!(!namespaces.contains("mcs-proxy"), "{namespaces}");
    cluster.nodes().iter().try_for_each(ensure_clean)
}

/// Connections that end within the drain lose nothing, nor do those that begin in it. Returns all that the command said.
fn left_under_traffic(
    installed: &Installed,
    client: &Namespace,
    leave: impl FnOnce() -> Result<Process>,
) -> Result<String> {
    let vip = installed.vip()?;
    let daemon = installed.clients_daemon()?;
    let steady = Traffic::steady(client, vip, 12)?;
    let fresh = Traffic::fresh(client, vip);
    let left = (|| {
        let mut command = leave()?;
        let draining = installed.wait_for_log(&daemon, "connections are still open");
        // From here on new ones are somebody else's.
        let beneath = Connection::open(client, vip);
        let ended = steady.stop();
        draining?;
        let mut beneath = beneath?;
        beneath.ask()?;
        let mut said = command.rest()?;
        said += &fs::read_to_string(command.log())?;
        ensure!(command.succeeds()?, "{said}");
        beneath.ask().context("a connection that began in the drain")?;
        anyhow::Ok((said, ended))
    })();
    let fresh = fresh.stop();
    let (said, steady) = left?;
    nothing_lost("connections that ended within the drain", &steady)?;
    nothing_lost("new connections", &fresh)?;
    Ok(said)
}

fn nothing_lost(kind: &str, report: &Report) -> Result<()> {
    println!("{kind}: {} answers, the longest {:.0?}", report.answers, report.longest);
    ensure!(report.lost.is_empty() && report.answers > 0, "{kind}: lost {:#?}", report.lost);
    Ok(())
}

/// Nothing is pinned, no program is on a hook, and of files there is none.
fn ensure_clean(node: &ClusterNode) -> Result<()> {
    let name = node.name();
    for (folder, what) in [("/sys/fs/bpf", "pinned"), ("/run/mcs-proxy", "left")] {
        // The kernel's own are named so.
        let found = node.run("find", &[folder, "-mindepth", "1", "-not", "-name", "*.debug"])?;
        ensure!(found.is_empty(), "{name}: still {what}: {found}");
    }
    let listed =
        node.run(&programs::mcs_proxy()?.display().to_string(), &["cleanup", "--dry-run", "-o", "json"])?;
    let mut listed: Vec<Value> = serde_json::from_str(&listed)?;
    // The mount point in the daemon's pod, which kubelet has made.
    listed.retain(|row| *row != json!({"kind": "directory", "name": "/run/mcs-proxy", "state": "found"}));
    ensure!(listed.is_empty(), "{name}: {listed:?}");

    let links = node.namespace().ip("-o link show")?;
    let indexes = links.lines().map(|line| Ok(line.split(':').next().context("no index")?.parse()?));
    let indexes = indexes.collect::<Result<Vec<u32>>>()?;
    let attached = node.namespace().run(move || {
        let hooks =
            indexes.iter().flat_map(|&index| [TcxHook::Ingress, TcxHook::Egress].map(|hook| (index, hook)));
        hooks.map(|(index, hook)| sys::tcx_query(index, hook)).collect::<Result<Vec<_>, _>>()
    })?;
    ensure!(attached.iter().all(Vec::is_empty), "{name}: {attached:?}");
    let cgroup = File::open(node.cgroup())?;
    for hook in SocketHook::ALL {
        let attached = sys::prog_query(cgroup.as_raw_fd().cast_unsigned(), hook.number())?;
        ensure!(attached.is_empty(), "{name}: {}: {attached:?}", hook.as_str());
    }
    Ok(())
}
