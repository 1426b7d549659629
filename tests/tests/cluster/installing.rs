//! From `helm install` to `helm uninstall`.

use super::installed::{Installed, answers};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, fs};

/// BPF, NET_ADMIN and PERFMON, by their numbers in `linux/capability.h`.
const CAPABILITIES: u64 = 1 << 39 | 1 << 12 | 1 << 38;

#[test]
fn the_chart_installs_with_three_capabilities_and_serves_pods_and_host_network_by_name() {
    let installed = Installed::start().unwrap();
    only_what_is_needed(&installed).unwrap();
    nothing_stands_in_the_way(&installed).unwrap();
    the_only_daemon_of_its_node(&installed).unwrap();
    served_by_name(&installed).unwrap();
    served_on_the_host_network(&installed).unwrap();
    served_from_the_first_connection_on(&installed).unwrap();
}

fn only_what_is_needed(installed: &Installed) -> Result<()> {
    let daemons = installed.daemons()?;
    ensure!(daemons.len() == 2, "a daemon a node: {daemons:?}");
    for pod in daemons.values() {
        let process = *installed.cluster.processes_of("mcs-proxy", pod)?.last().context("no process")?;
        let status = status(process)?;
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let has = u64::from_str_radix(&status[set], 16)?;
            ensure!(has == CAPABILITIES, "{pod}: {set} is {has:x}");
        }
        ensure!(status["NoNewPrivs"] == "1" && status["Seccomp"] == "2", "{pod}: {status:?}");
        let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).context("no root")?;
        ensure!(root.split(' ').nth(5).is_some_and(|options| options.starts_with("ro")), "{root}");
    }
    Ok(())
}

/// A second daemon on a node is refused with the first one's pod.
fn the_only_daemon_of_its_node(installed: &Installed) -> Result<()> {
    for pod in installed.daemons()?.values() {
        let refused = installed.mcs_proxy(pod, &["run", "--cluster-name=member1"]).err();
        let words = format!("{:#}", refused.context("a second daemon runs")?);
        ensure!(
            words.contains("another mcs-proxy runs on this node")
                && words.contains(&format!("(pod {pod}, version 0.1.0")),
            "{words}"
        );
    }
    Ok(())
}

fn status(process: u32) -> Result<BTreeMap<String, String>> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    ensure!(status.contains("mcs-proxy"), "another process: {status}");
    let pair =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Ok(status.lines().filter_map(pair).collect())
}

/// Thirty calls, in turns, all of them ours.
pub(super) fn called_evenly(installed: &Installed, pod: &str, host: &str) -> Result<()> {
    let object = installed.cluster.get(&format!("/api/v1/namespaces/default/pods/{pod}"))?;
    let node = object["spec"]["nodeName"].as_str().with_context(|| object.to_string())?;
    let daemon = &installed.daemons()?[node];
    let before = installed.flows(daemon)?;
    let tally = installed.calls(pod, host, 30)?;
    ensure!(tally.len() == 3 && tally.values().all(|&count| count == 10), "not in turns: {tally:?}");
    let flows = installed.flows(daemon)? - before;
    ensure!(flows == 30, "{flows} of 30 calls were ours");
    Ok(())
}

/// As `check` sees it from within the pod.
fn nothing_stands_in_the_way(installed: &Installed) -> Result<()> {
    for pod in installed.daemons()?.values() {
        let lines: Value = serde_json::from_str(&installed.mcs_proxy(pod, &["check", "-o", "json"])?)?;
        let about = |part: &str| lines.as_array().into_iter().flatten().find(|line| line["part"] == part);
        for (part, words) in [
            ("capabilities", "CAP_PERFMON are there"),
            ("bpffs", "/sys/fs/bpf/mcs-proxy"),
            ("cgroup hooks", "connect, sendmsg"),
            ("cgroup2", "/host/cgroup"),
            ("ip_forward", "1"),
            ("pins", "takes them over"),
            ("other programs", "none but ours"),
            ("kube-proxy", "in nftables mode"),
            ("Cilium", "not here"),
        ] {
            let line = about(part).with_context(|| format!("no line about {part}: {lines}"))?;
            let says = line["says"].as_str().unwrap_or_default();
            ensure!(line["level"] == "ok" && says.contains(words), "{pod}: {line}");
        }
    }
    Ok(())
}

fn served_by_name(installed: &Installed) -> Result<()> {
    installed.wait_until_served()?;
    // The client's node has backends on its own bridge, and the other node has some.
    let pods = installed.cluster.get("/api/v1/namespaces/default/pods")?;
    let nodes = pods["items"].as_array().into_iter().flatten().map(|pod| pod["spec"]["nodeName"].to_string());
    ensure!(nodes.collect::<std::collections::BTreeSet<_>>().len() == 2, "one node has all pods");
    called_evenly(installed, "client", "serve.default.svc.cluster.local:80")
}

fn served_on_the_host_network(installed: &Installed) -> Result<()> {
    installed.cluster.apply(
        r#"apiVersion: v1
kind: Pod
metadata: {name: host-client}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "localhost/hello-pod:1", imagePullPolicy: Never, args: [wait]}
"#,
    )?;
    installed.wait_for_pod("host-client")?;
    called_evenly(installed, "host-client", "serve.default.svc.cluster.local:80")
}

/// Pods that call as soon as they run.
fn served_from_the_first_connection_on(installed: &Installed) -> Result<()> {
    let vip = installed.vip()?.to_string();
    for number in 0..3 {
        let name = format!("first-{number}");
        let image = "--image=localhost/hello-pod:1";
        installed.cluster.kubectl(&[
            "run",
            &name,
            image,
            "--image-pull-policy=Never",
            "--restart=Never",
            "--",
            "call",
            &vip,
            "30",
        ])?;
    }
    for number in 0..3 {
        let name = format!("first-{number}");
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
        let pod = installed.cluster.wait_for(&name, &path, ended)?;
        let said = installed.cluster.kubectl(&["logs", &name])?;
        ensure!(pod["status"]["phase"] == "Succeeded", "{name}: {said}");
        ensure!(answers(&said)?.values().sum::<u32>() == 30, "{name}: {said}");
    }
    Ok(())
}
