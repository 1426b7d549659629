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
        ("a rolling update of the daemons", rolling_update as fn(&mut Installed) -> Result<()>),
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
    let report = backends_replaced(&installed, &client).unwrap();
    println!("backends replaced: {} answers, the longest {:.0?}", report.answers, report.longest);
    assert!(report.lost.is_empty() && report.answers > 0, "backends replaced: {:#?}", report.lost);
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

fn rolling_update(installed: &mut Installed) -> Result<()> {
    let before = installed.daemons()?;
    installed.cluster.kubectl(&["-n", "mcs-proxy", "rollout", "restart", "daemonset/mcs-proxy"])?;
    installed.cluster.wait_for_rollout("mcs-proxy", "daemonset/mcs-proxy")?;
    let after = installed.daemons()?;
    ensure!(
        after.len() == 2 && before.iter().all(|(node, pod)| after[node] != *pod),
        "{before:?}, {after:?}"
    );
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

/// Connections to a pod end with it; new ones find another.
fn backends_replaced(installed: &Installed, client: &Namespace) -> Result<Report> {
    let fresh = Traffic::fresh(client, installed.vip()?);
    let restarted = installed
        .cluster
        .kubectl(&["rollout", "restart", "deployment/serve"])
        .and_then(|_| installed.cluster.wait_for_rollout("default", "deployment/serve"));
    let report = fresh.stop();
    restarted?;
    Ok(report)
}

/// The node that the client is not on loses its power: what is on the other goes on, and it comes back.
fn node_lost(installed: &mut Installed, client: &Namespace) -> Result<()> {
    let pod = installed.cluster.get("/api/v1/namespaces/default/pods/client")?;
    let lost = usize::from(pod["spec"]["nodeName"] == installed.cluster.nodes()[0].name());
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
