use crate::stage::{PODS, Stage, service, slice, until, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::client;
use std::{collections::BTreeSet, net::SocketAddr};

/// Every row belongs to a family that says what it is; the page is OpenMetrics from beginning to end.
#[test]
fn every_metric_has_help_and_type_and_follows_changes() -> Result<()> {
    let stage = Stage::new(&[])?;
    let page = stage.get("/metrics")?;
    ensure!(page.status == 200 && page.content_type.starts_with("application/openmetrics-text"), "{page:?}");
    ensure!(page.body.ends_with("# EOF\n"), "{}", page.body);
    let about = |what: &str| -> BTreeSet<&str> {
        page.body.lines().filter_map(|line| line.strip_prefix(what)?.split(' ').next()).collect()
    };
    let (help, kinds) = (about("# HELP "), about("# TYPE "));
    ensure!(help == kinds, "{help:?} {kinds:?}");
    for line in page.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().context("empty")?;
        let bare = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        ensure!(name.starts_with("mcs_proxy_"), "{line}");
        ensure!(help.contains(name) || bare.is_some_and(|bare| help.contains(bare)), "no help: {line}");
    }

    ensure!(stage.metric("mcs_proxy_synced", &[])? == 1.0);
    ensure!(stage.metric("mcs_proxy_mode", &["mode=\"active\""])? == 1.0);
    ensure!(stage.metric("mcs_proxy_source_up", &["kind=\"EndpointSlice\""])? == 1.0);
    ensure!(stage.metric("mcs_proxy_frontends", &[])? == 1.0);
    let before = stage.metric("mcs_proxy_transactions_total", &[])?;
    stage.manifests.service(&service("other", "10.13.0.2")?)?;
    until("the change is counted", || Ok(stage.metric("mcs_proxy_transactions_total", &[])? > before))?;
    ensure!(
        stage.metric("mcs_proxy_sync_latency_seconds_count", &[])? >= 1.0,
        "{}",
        stage.get("/metrics")?.body
    );
    until("a turn", || Ok(stage.metric("mcs_proxy_interfaces", &["state=\"attached\""])? == 2.0))
}

/// Ten connections, five to either cluster; then one cluster leaves, and what was counted for it stays until its row goes.
#[test]
fn connections_are_counted_by_service_and_source_cluster() -> Result<()> {
    let stage = Stage::new(&["--metrics-max-rows", "2"])?;
    client::http(&stage.client.namespace, vip(), 10)?;
    let flows = |cluster: &str| {
        let labels = ["service=\"serve\"", "namespace=\"default\"", "path=\"packets\"", cluster];
        stage.metric("mcs_proxy_service_new_flows_total", &labels)
    };
    until("ten flows", || Ok(flows("cluster=\"member1\"").unwrap_or_default() == 5.0))?;
    ensure!(flows("cluster=\"member2\"")? == 5.0);
    ensure!(stage.metric("mcs_proxy_service_answered_flows_total", &["service=\"serve\""])? == 10.0);
    ensure!(stage.metric("mcs_proxy_service_packets_total", &["service=\"serve\"", "\"in\""])? >= 40.0);
    ensure!(stage.metric("mcs_proxy_verdict_packets_total", &["verdict=\"new_flow\""])? == 10.0);
    ensure!(stage.metric("mcs_proxy_endpoints", &["cluster=\"member1\"", "verdict=\"used\""])? == 1.0);

    // A third row does not come: who needs one shares that of all others.
    stage.manifests.service(&service("other", "10.13.0.2")?)?;
    stage.manifests.slice(&slice("member1-other-x", "other", "member1", PODS[0])?)?;
    let other: SocketAddr = "10.13.0.2:80".parse()?;
    until("the other Service is served", || Ok(client::http(&stage.client.namespace, other, 1).is_ok()))?;
    until("the row of all others", || {
        let labels = ["service=\"other\"", "namespace=\"\"", "cluster=\"other\"", "packets"];
        Ok(stage.metric("mcs_proxy_service_new_flows_total", &labels).unwrap_or_default() >= 1.0)
    })?;
    Ok(())
}
