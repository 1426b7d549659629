//! What happens to a cluster in a year, in a minute, under traffic.

use super::{
    installed::Installed,
    traffic::{Report, Traffic},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{Namespace, cluster::is_ready};

#[test]
fn nothing_is_lost_when_daemons_kubelets_backends_and_nodes_come_and_go() {
    let mut installed = Installed::start().unwrap();
    installed.wait_until_served().unwrap();
    let client = installed.cluster.enter("default", "client").unwrap();

    for (what, act) in [
        ("an upgrade of the daemons", upgrade as fn(&mut Installed) -> Result<()>),
        ("a daemon killed", daemon_killed),
        ("a kubelet killed", kubelet_killed),
        ("opted out and in", opted_out_and_in),
    ] {
        let (steady, fresh) =
            under_traffic(&mut installed, &client, act).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        for (kind, report) in [("connections that stay", steady), ("new connections", fresh)] {
            println!("{what}, {kind}: {} answers, the longest {:.0?}", report.answers, report.longest);
            assert!(report.lost.is_empty() && report.answers > 0, "{what}: {kind} lost {:#?}", report.lost);
        }
    }
    for (what, act) in [
        ("backends replaced", backends_replaced as fn(&Installed) -> Result<()>),
        ("a node drained", node_drained),
    ] {
        // Connections to a pod end with it; new ones find another.
        let fresh = Traffic::fresh(&client, installed.vip().unwrap());
        let acted = act(&installed);
        let report = fresh.stop();
        acted.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        println!("{what}: {} answers, the longest {:.0?}", report.answers, report.longest);
        assert!(report.lost.is_empty() && report.answers > 0, "{what}: {:#?}", report.lost);
    }
    node_lost(&mut installed, &client).unwrap();
}

fn under_traffic(
    installed: &mut Installed,
    client: &Namespace,
    act: fn(&mut Installed) -> Result<()>,
) -> Result<(Report, Report)> {
    let vip = installed.vip()?;
    let steady = Traffic::steady(client, vip, 12)?;
    let fresh = Traffic::fresh(client, vip);
    let acted = act(installed);
    let reports = (steady.stop(), fresh.stop());
    acted?;
    Ok(reports)
}

/// To larger maps, as an upgrade may have them.
fn upgrade(installed: &mut Installed) -> Result<()> {
    let before = installed.daemons()?;
    installed.upgrade("extraArgs={--max-flows=600000}")?;
    let after = installed.daemons()?;
    ensure!(
        after.len() == 2 && before.iter().all(|(node, pod)| after[node] != *pod),
        "{before:?}, {after:?}"
    );
    for pod in after.values() {
        let larger = || Ok(installed.mcs_proxy(pod, &["status"])?.contains("600000"));
        installed.cluster.until("the maps are larger", larger)?;
    }
    Ok(())
}

fn daemon_killed(installed: &mut Installed) -> Result<()> {
    let (_, pod) = installed.daemons()?.pop_first().context("no daemon")?;
    let process = *installed.cluster.processes_of("mcs-proxy", &pod)?.last().context("no process")?;
    installed.cluster.kill(process)?;
    let again =
        |pod: &serde_json::Value| is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    installed.cluster.wait_for(&pod, &format!("/api/v1/namespaces/mcs-proxy/pods/{pod}"), again).map(drop)
}

fn kubelet_killed(installed: &mut Installed) -> Result<()> {
    let log = installed.cluster.nodes()[0].folder().join("kubelet.log");
    let starts =
        || -> Result<usize> { Ok(std::fs::read_to_string(&log)?.matches("\"Started kubelet\"").count()) };
    let before = starts()?;
    installed.cluster.nodes()[0].crash_kubelet()?;
    installed.cluster.until("kubelet starts again", || Ok(starts()? > before))?;
    // It knows its pods some seconds later.
    let daemon = &installed.daemons()?[installed.cluster.nodes()[0].name()];
    installed
        .cluster
        .until("kubelet knows its pods", || Ok(installed.mcs_proxy(daemon, &["services"]).is_ok()))
}

fn opted_out_and_in(installed: &mut Installed) -> Result<()> {
    let installed = &*installed;
    installed.cluster.kubectl(&[
        "annotate",
        "service",
        "serve",
        "--overwrite",
        "mcs-proxy.io/enabled=false",
    ])?;
    let daemons = installed.daemons()?;
    let (cluster, pods) = (&installed.cluster, &daemons);
    let served = |wanted: bool| {
        let state = move || -> Result<bool> {
            let mut all = true;
            for pod in pods.values() {
                all &= installed.mcs_proxy(pod, &["services"])?.contains("default/serve") == wanted;
            }
            Ok(all)
        };
        cluster.until("the Service goes, and comes back", state)
    };
    served(false)?;
    cluster.kubectl(&["annotate", "service", "serve", "--overwrite", "mcs-proxy.io/enabled=true"])?;
    served(true)
}

fn backends_replaced(installed: &Installed) -> Result<()> {
    installed.cluster.kubectl(&["rollout", "restart", "deployment/serve"])?;
    installed.cluster.wait_for_rollout("default", "deployment/serve")
}

/// Of the node that the client is not on, which takes pods again afterwards.
fn node_drained(installed: &Installed) -> Result<()> {
    let client = installed.clients_node()?;
    let node = installed.cluster.nodes().iter().find(|node| node.name() != client).context("one node")?;
    installed.cluster.kubectl(&["drain", node.name(), "--ignore-daemonsets", "--timeout=120s"])?;
    installed.cluster.wait_for_rollout("default", "deployment/serve")?;
    ensure!(installed.serving_on(node.name())? == 0, "{} was not drained", node.name());
    installed.cluster.kubectl(&["uncordon", node.name()])?;
    // So that the pods are on both again.
    backends_replaced(installed)
}

/// The node that the client is not on loses its power: what is on the other goes on, and it comes back.
fn node_lost(installed: &mut Installed, client: &Namespace) -> Result<()> {
    let lost = usize::from(installed.clients_node()? == installed.cluster.nodes()[0].name());
    let name = installed.cluster.nodes()[lost].name().to_owned();
    installed.cluster.node(lost).crash()?;
    let path = format!("/api/v1/nodes/{name}");
    installed.cluster.wait_for("the node is missed", &path, |node| !is_ready(node))?;
    // The endpoints of its pods are not ready any more: new connections find the others.
    let vip = installed.vip()?;
    let own = installed.cluster.nodes()[1 - lost].name().to_owned();
    let daemon = installed.daemons()?.remove(&own).context("no daemon on the node that is left")?;
    let left = installed.serving_on(&own)?;
    installed
        .cluster
        .until("the lost endpoints are out of the maps", || Ok(installed.endpoints(&daemon)? == left))?;
    let fresh = Traffic::fresh(client, vip);
    installed.cluster.node(lost).start()?;
    installed.cluster.wait_for_nodes()?;
    let rolled = installed.cluster.wait_for_rollout("mcs-proxy", "daemonset/mcs-proxy");
    let report = fresh.stop();
    rolled?;
    println!("a node lost and back: {} answers, the longest {:.0?}", report.answers, report.longest);
    ensure!(report.lost.is_empty() && report.answers > 0, "a node lost: {:#?}", report.lost);
    Ok(())
}
