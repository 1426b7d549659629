use super::{close_hole, open_hole, stage, traffic::Traffic, wait_for_verdicts};
use crate::stage::{Stage, v4, v6};
use anyhow::{Result, ensure};
use mcs_proxy_tests::http;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Whether some line of `mcs-proxy status` about answers has this level and these words.
fn says(stage: &Stage, level: &str, words: &str) -> Result<bool> {
    let status = stage.daemon.status()?;
    let lines = status["lines"].as_array().cloned().unwrap_or_default();
    Ok(lines.iter().any(|line| {
        line["part"] == "answers"
            && line["level"] == level
            && line["says"].as_str().is_some_and(|it| it.contains(words))
    }))
}

/// The sum of a metric's rows that have these labels; `None` if there are none.
fn metric(stage: &Stage, name: &str, labels: &[&str]) -> Result<Option<f64>> {
    let page = http::get(&stage.node.namespace, "127.0.0.1:10266".parse()?, "/metrics")?.body;
    let rows = page.lines().filter(|line| line.starts_with(&format!("mcs_proxy_{name}{{")));
    let rows = rows.filter(|line| labels.iter().all(|label| line.contains(label)));
    let values = rows.map(|row| Ok(row.rsplit_once(' ').unwrap_or_default().1.parse()?));
    let values = values.collect::<Result<Vec<f64>>>()?;
    Ok((!values.is_empty()).then(|| values.iter().sum()))
}

fn until(stage: &Stage, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        let status = || stage.daemon.status().map(|status| format!("{:#}", status["lines"]));
        ensure!(start.elapsed() < Duration::from_secs(30), "not in time: {what}: {:?}", status());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

const MEMBER1: [&str; 3] = ["namespace=\"default\"", "service=\"serve\"", "cluster=\"member1\""];

#[test]
fn what_does_not_answer_is_a_line_of_status_and_a_number_of_its_service_until_it_answers() -> Result<()> {
    let mut stage = stage(|service| service, &[])?;
    ensure!(says(&stage, "ok", "nobody is left out")?);
    ensure!(metric(&stage, "unanswered_clusters", &[])? == Some(0.0));

    open_hole(&stage.pods[0])?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    wait_for_verdicts(&mut stage, "member1", "cluster unanswered")?;
    for family in ["IPv4", "IPv6"] {
        until(&stage, family, || {
            says(&stage, "warning", &format!("cluster member1 does not answer over {family}"))
        })?;
    }
    let outages = &stage.daemon.status()?["outages"];
    ensure!(outages[0]["cluster"] == "member1" && outages[0]["diverted"] == true, "{outages}");
    // Two families, TCP and UDP.
    let unanswered = |stage: &Stage| metric(stage, "service_unanswered_endpoints", &MEMBER1);
    until(&stage, "four endpoints", || Ok(unanswered(&stage)? == Some(4.0)))?;
    ensure!(metric(&stage, "unanswered_clusters", &["diverted"])? == Some(2.0));

    // Nobody is left who could take over.
    open_hole(&stage.pods[1])?;
    until(&stage, "kept", || says(&stage, "failed", "member2 does not answer over IPv4, and nothing else"))?;
    until(&stage, "kept, counted", || Ok(metric(&stage, "unanswered_clusters", &["kept"])? == Some(2.0)))?;
    traffic.end()?;
    close_hole(&stage.pods[1])?;

    stage.daemon.crash()?;
    ensure!(
        says(&stage, "warning", "cluster member1 does not answer over IPv6")?,
        "{}",
        stage.daemon.status()?
    );
    stage.daemon.launch()?;
    until(&stage, "four endpoints after a restart", || Ok(unanswered(&stage)? == Some(4.0)))?;

    close_hole(&stage.pods[0])?;
    let traffic = Traffic::start(&stage.client.namespace, &[v4()?, v6()?]);
    wait_for_verdicts(&mut stage, "member1", "used")?;
    until(&stage, "all well", || says(&stage, "ok", "nobody is left out"))?;
    until(&stage, "none", || Ok(unanswered(&stage)? == Some(0.0)))?;
    traffic.end()
}
