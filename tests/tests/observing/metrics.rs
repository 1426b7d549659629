use crate::stage::{Stage, service, until};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

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
