//! Which cluster takes the new flows.

use crate::stage::{PODS, Stage, slice, v4};
use anyhow::Result;
use mcs_proxy_tests::{
    client::{self, Connection, Tally},
    karmada::Slice,
};
use std::net::IpAddr;

fn stage(clusters: &str) -> Result<Stage> {
    Stage::with(
        |service| service.annotated("enabled", "true").annotated("clusters", clusters),
        &["--tier-hold", "1s"],
    )
}

fn assert_all_at(stage: &Stage, pod: usize) -> Result<()> {
    let answers = client::http(&stage.client.namespace, v4()?, 6)?;
    assert_eq!(client::tally(&answers), Tally::from([(PODS[pod].parse::<IpAddr>()?, 6)]));
    Ok(())
}

/// Both families' local endpoints, ready or not.
fn set_local_ready(stage: &Stage, ready: bool) -> Result<()> {
    for address in [PODS[1], "fd10:12::6"] {
        let mut local: Slice = slice(1, address)?;
        local.endpoints[0].ready = ready;
        stage.manifests.slice(&local)?;
    }
    Ok(())
}

fn wait_for_cluster(stage: &mut Stage, cluster: &str) -> Result<()> {
    stage.daemon.wait_for_services(&format!("all slots with {cluster}"), |rows| {
        rows.iter().all(|row| row.endpoints.iter().all(|it| it.in_maps == (it.cluster == cluster)))
    })
}

#[test]
fn a_tier_spills_over_and_comes_back_and_only_new_flows_move() -> Result<()> {
    let mut stage = stage("local,others")?;
    assert_all_at(&stage, 1)?;
    let mut early = Connection::open(&stage.client.namespace, v4()?)?;
    assert_eq!(early.ask()?, PODS[1].parse::<IpAddr>()?);

    set_local_ready(&stage, false)?;
    wait_for_cluster(&mut stage, "member1")?;
    assert_all_at(&stage, 0)?;
    let mut between = Connection::open(&stage.client.namespace, v4()?)?;
    assert_eq!(between.ask()?, PODS[0].parse::<IpAddr>()?);

    set_local_ready(&stage, true)?;
    wait_for_cluster(&mut stage, "member2")?;
    assert_all_at(&stage, 1)?;
    assert_eq!(early.ask()?, PODS[1].parse::<IpAddr>()?);
    assert_eq!(between.ask()?, PODS[0].parse::<IpAddr>()?);
    Ok(())
}

#[test]
fn clusters_share_by_number() -> Result<()> {
    let stage = stage("member1=3+local=1")?;
    let answers = client::http(&stage.client.namespace, v4()?, 24)?;
    assert_eq!(client::tally(&answers), Tally::from([(PODS[0].parse()?, 18), (PODS[1].parse()?, 6)]));
    Ok(())
}
