//! `mcs-proxy uninstall`: orders every daemon to leave its node, by the ConfigMap of the settings, and waits for their reports.
//!
//! Daemons report by Events about that ConfigMap, labelled with the order's id: to create Events is the one thing that they may
//! write, and whoever waits here needs to list them in this one namespace only. Which nodes are waited for the daemons' pods tell.

use crate::{
    config::Uninstall as Asked,
    model::{MODE_KEY, UNINSTALL_ANNOTATION, Uninstall},
    source::kubernetes::{Locations, client},
};
use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Service},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep};

/// Services with it are ours alone: kube-proxy leaves them to us.
const LABELLED: &str = "service.kubernetes.io/service-proxy-name=mcs-proxy";

/// Between two looks for reports.
const PAUSE: Duration = Duration::from_secs(1);

/// So many Services are named.
const NAMED: usize = 10;

/// What a daemon has reported.
struct Left {
    is_clean: bool,
    note: String,
}

/// # Errors
/// Services would be left to nobody; the API server refuses something; or nodes did not report, which the error names.
pub fn uninstall(asked: &Asked) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, server) = client(&Locations::from_environment(asked.kubeconfig.clone())).await?;
        let done = if asked.undo { undo(&client, asked).await } else { order(&client, asked).await };
        done.with_context(|| server)
    })
}

async fn order(client: &Client, asked: &Asked) -> anyhow::Result<String> {
    if !asked.force {
        refuse_if_needed(client).await?;
    }
    let settings = settings(client, asked).await?;
    let mode = settings.data.as_ref().and_then(|data| data.get(MODE_KEY)).cloned();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let order = Uninstall { id: format!("{:x}", since_epoch.as_micros()), drain: asked.drain.into(), mode };
    let mut nodes = nodes(client, asked).await?;
    ensure!(
        !nodes.is_empty(),
        "no pods of a DaemonSet with the labels {} in namespace {}: name theirs by --selector, or their namespace by \
         --settings NAMESPACE/NAME; where no daemon runs there is nothing to order, and `mcs-proxy cleanup` cleans a node",
        asked.selector,
        asked.settings.namespace
    );
    let text = serde_json::to_string(&order)?;
    patch(
        client,
        asked,
        &json!({"metadata": {"annotations": {UNINSTALL_ANNOTATION: text}}, "data": {MODE_KEY: "drain"}}),
    )
    .await?;
    eprintln!("{} nodes are told to drain for {} and to leave", nodes.len(), asked.drain);

    let until = Instant::now() + order.drain + *asked.patience;
    let mut reports = BTreeMap::new();
    loop {
        // Said again until there is an answer: an API server may be away for a moment.
        let looked = async {
            reports = reported(client, asked, &order.id).await?;
            nodes = self::nodes(client, asked).await?;
            anyhow::Ok(())
        };
        let failure = looked.await.err();
        let missing: Vec<_> = nodes.iter().filter(|node| !reports.contains_key(*node)).collect();
        if failure.is_none() && missing.is_empty() {
            break;
        }
        if Instant::now() > until {
            if let Some(failure) = failure {
                return Err(failure.context("what the daemons report cannot be read"));
            }
            break;
        }
        sleep(PAUSE).await;
    }
    conclude(&nodes, &reports)
}

/// What each node reported; an error if one did not, or is not clean.
fn conclude(nodes: &BTreeSet<String>, reports: &BTreeMap<String, Left>) -> anyhow::Result<String> {
    let mut told = String::new();
    for (node, report) in reports {
        told.push_str(&format!("{node}: {}\n", report.note));
    }
    let silent: Vec<_> = nodes.iter().filter(|node| !reports.contains_key(*node)).cloned().collect();
    let unclean: Vec<_> =
        reports.iter().filter(|(_, left)| !left.is_clean).map(|(node, _)| node.clone()).collect();
    if silent.is_empty() && unclean.is_empty() {
        return Ok(told);
    }
    eprint!("{told}");
    let mut reasons = Vec::new();
    if !silent.is_empty() {
        reasons.push(format!("no report of {}", silent.join(", ")));
    }
    if !unclean.is_empty() {
        reasons.push(format!("something is left on {}", unclean.join(", ")));
    }
    bail!("{}: `mcs-proxy cleanup` there takes off what is left", reasons.join("; "))
}

async fn undo(client: &Client, asked: &Asked) -> anyhow::Result<String> {
    let settings = settings(client, asked).await?;
    let Some(text) = settings.annotations().get(UNINSTALL_ANNOTATION) else {
        return Ok(format!("ConfigMap {} orders nobody to leave.\n", asked.settings));
    };
    // What cannot be read had no effect either.
    let mode = serde_json::from_str::<Uninstall>(text).ok().and_then(|order| order.mode);
    patch(
        client,
        asked,
        &json!({"metadata": {"annotations": {UNINSTALL_ANNOTATION: null}}, "data": {MODE_KEY: mode}}),
    )
    .await?;
    Ok("Taken back: daemons that have left end, and serve again once they are started anew.\n".into())
}

async fn refuse_if_needed(client: &Client) -> anyhow::Result<()> {
    let listed = Api::<Service>::all(client.clone()).list(&ListParams::default().labels(LABELLED)).await;
    let services = listed.context("the Services that have no other proxy cannot be listed")?.items;
    let names: Vec<_> = services
        .iter()
        .take(NAMED)
        .map(|service| format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any()))
        .collect();
    let more = services.len().saturating_sub(NAMED);
    ensure!(
        services.is_empty(),
        "nobody would serve {}{}, which have the label {LABELLED}: take it off them (kubectl label service NAME \
         service.kubernetes.io/service-proxy-name-), so that kube-proxy serves them; or leave all the same by --force",
        names.join(", "),
        if more > 0 { format!(" and {more} more") } else { String::new() }
    );
    Ok(())
}

async fn settings(client: &Client, asked: &Asked) -> anyhow::Result<ConfigMap> {
    let name = &asked.settings;
    let found = Api::<ConfigMap>::namespaced(client.clone(), &name.namespace).get_opt(&name.name).await;
    found.with_context(|| format!("ConfigMap {name}"))?.with_context(|| {
        format!(
            "there is no ConfigMap {name}, by which the daemons are told: name the one of their --settings by --settings, or \
             make it (kubectl create configmap -n {} {})",
            name.namespace, name.name
        )
    })
}

async fn patch(client: &Client, asked: &Asked, patch: &serde_json::Value) -> anyhow::Result<()> {
    let name = &asked.settings;
    let api = Api::<ConfigMap>::namespaced(client.clone(), &name.namespace);
    let patched = api.patch(&name.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.with_context(|| format!("ConfigMap {name}")).map(drop)
}

/// Nodes that a daemon's pod is on.
async fn nodes(client: &Client, asked: &Asked) -> anyhow::Result<BTreeSet<String>> {
    let namespace = &asked.settings.namespace;
    let listed = Api::<Pod>::namespaced(client.clone(), namespace)
        .list(&ListParams::default().labels(&asked.selector))
        .await
        .with_context(|| format!("the daemons' pods in namespace {namespace} cannot be listed"))?;
    let is_a_daemons = |pod: &Pod| pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet");
    let node = |pod: Pod| pod.spec.and_then(|spec| spec.node_name);
    Ok(listed.items.into_iter().filter(is_a_daemons).filter_map(node).collect())
}

/// By node; of several reports of a node the last.
async fn reported(client: &Client, asked: &Asked, id: &str) -> anyhow::Result<BTreeMap<String, Left>> {
    let selector = format!("{UNINSTALL_ANNOTATION}={id}");
    let listed = Api::<Event>::namespaced(client.clone(), &asked.settings.namespace)
        .list(&ListParams::default().labels(&selector))
        .await
        .context("the daemons' Events cannot be listed")?;
    let mut events = listed.items;
    events.sort_by_key(|event| event.event_time.clone());
    let left = |event: Event| {
        let node = event.related?.name?;
        let is_clean = event.reason.as_deref() == Some("Uninstalled");
        Some((node, Left { is_clean, note: event.note.unwrap_or_default() }))
    };
    Ok(events.into_iter().filter_map(left).collect())
}
