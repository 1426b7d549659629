//! `connections`, `stats` and `services --watch`.

use crate::{
    stage::{PODS, Stage, VIP, service, v4, v6},
    watcher::Watcher,
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::client::{self, Connection};
use serde_json::Value;

fn shown(stage: &Stage, arguments: &[&str]) -> Result<Vec<Value>> {
    let text = stage.daemon.show(&[arguments, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

#[test]
fn connections_are_asked_for_by_everything_they_are_shown_with() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut open =
        (0..2).map(|_| Connection::open(&stage.client.namespace, v4()?)).collect::<Result<Vec<_>>>()?;
    let pods = open.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>()?;
    ensure!(pods[0] != pods[1], "{pods:?}");
    client::udp(&stage.client.namespace, v6()?, 1)?;
    // What is over is among them, until newer flows take its place.
    client::http(&stage.client.namespace, v6()?, 1)?;
    // With a daemon, and after its end.
    for _ in 0..2 {
        let count = |arguments: &[&str]| {
            Ok::<_, anyhow::Error>(shown(&stage, &[&["connections"], arguments].concat())?.len())
        };
        let established = ["--state", "established"];
        assert_eq!(count(&[])?, 4);
        assert_eq!(count(&established)?, 2);
        assert_eq!(count(&["--state", "established,answered"])?, 3);
        assert_eq!(count(&["--state", "time-wait"])?, 1);
        assert_eq!(count(&["--cluster", "member1", "--state", "established"])?, 1);
        assert_eq!(count(&["--cluster", "member9"])?, 0);
        assert_eq!(count(&["--backend", PODS[1], "--state", "established"])?, 1);
        assert_eq!(count(&["--backend", "10.12.0.0/16"])?, 1);
        assert_eq!(count(&["--client", "10.12.0.9", "--protocol", "tcp"])?, 2);
        assert_eq!(count(&["--client", "10.12.0.9:1"])?, 0);
        assert_eq!(count(&["--protocol", "UDP", "default/serve"])?, 1);
        assert_eq!(count(&["default/other"])?, 0);
        for row in shown(&stage, &["connections", "--backend", PODS[0]])? {
            ensure!(row["cluster"] == "member1" && row["service"] == "default/serve", "{row:#}");
        }
        let none = stage.daemon.show(&["connections", "--cluster", "member9"])?;
        assert_eq!(none, "No flows like these; without filters all are listed.\n");
        stage.daemon.crash()?;
    }
    Ok(())
}

#[test]
fn stats_add_up_to_the_traffic_and_rates_are_of_their_interval_alone() -> Result<()> {
    let mut stage = Stage::new()?;
    client::http(&stage.client.namespace, v4()?, 10)?;
    stage.daemon.wait_for_services("names", |rows| rows.iter().all(|row| row.name == "serve"))?;
    stage.daemon.crash()?;
    let stats = |arguments: &[&str]| -> Result<Value> {
        let text = stage.daemon.show(&[&["stats", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| text)
    };
    let totals = stats(&[])?;
    let row = |stats: &Value| -> Result<Value> {
        let rows = stats["services"].as_array().context("no services")?;
        let of_vip = |row: &&Value| row["vip"] == VIP && row["protocol"] == "TCP";
        rows.iter().find(of_vip).cloned().context("no row")
    };
    let serve = row(&totals)?;
    ensure!(totals.get("seconds").is_none() && serve["connections"] == 10, "{totals:#}");
    let number = |of: &Value| of.as_f64().unwrap_or_default();
    let backends = serve["backends"].as_array().context("no backends")?;
    let sum = |field: &str| backends.iter().map(|backend| number(&backend[field])).sum::<f64>();
    assert_eq!((sum("connections"), sum("answered")), (10.0, 10.0));
    assert_eq!(sum("bytes"), number(&serve["bytes_in"]) + number(&serve["bytes_out"]));
    ensure!(number(&serve["packets_in"]) >= 40.0 && number(&serve["packets_out"]) >= 40.0, "{serve:#}");
    let clusters = totals["clusters"].as_array().context("no clusters")?;
    let names: Vec<_> =
        clusters.iter().map(|cluster| (&cluster["cluster"], &cluster["connections"])).collect();
    assert_eq!(names, [(&"member1".into(), &5.into()), (&"member2".into(), &5.into())]);

    // Nothing happens in the first interval; then a known number of connections in one of the next.
    let rates = Watcher::start(
        &stage.daemon,
        &["stats", "--rate", "--interval", "1s", "--count", "0", "-o", "json"],
    )?;
    let quiet = rates.json()?;
    assert_eq!(number(&row(&quiet)?["connections"]), 0.0, "{quiet:#}");
    client::http(&stage.client.namespace, v4()?, 20)?;
    let mut seen = 0.0;
    while seen < 19.5 {
        let rate = rates.json()?;
        let seconds = number(&rate["seconds"]);
        ensure!(seconds >= 1.0, "{rate:#}");
        seen += number(&row(&rate)?["connections"]) * seconds;
    }
    ensure!((seen - 20.0).abs() < 0.01, "{seen} connections in all");

    let table = stage.daemon.show(&["stats", "default/serve"])?;
    for words in ["InPkts", "10.13.181.116:80", "-> 10.10.0.6:8080", "member1", "default/serve:http"] {
        ensure!(table.contains(words), "no `{words}`:\n{table}");
    }
    ensure!(stage.daemon.show(&["stats", "--rate"])?.contains("InBPS"));
    Ok(())
}

#[test]
fn a_watch_tells_of_each_change_once_and_of_counters_never() -> Result<()> {
    let stage = Stage::new()?;
    let watch = Watcher::start(&stage.daemon, &["services", "--watch", "--interval", "100ms", "-o", "json"])?;
    for _ in 0..4 {
        let change = watch.json()?;
        ensure!(change["type"] == "ADDED" && change["service"]["name"] == "serve", "{change:#}");
    }
    client::http(&stage.client.namespace, v4()?, 5)?;
    stage.manifests.remove_slice("serve-mvgj7")?;
    // TCP and UDP of the one family whose slice it was. The maps and the names beside them may change one after the other.
    for protocol in ["TCP", "UDP"] {
        watch.until(|change| {
            let service = &change["service"];
            let endpoints = service["endpoints"].as_array().map(Vec::len);
            assert_eq!((&change["type"], &service["vip"]), (&"MODIFIED".into(), &VIP.into()), "{change:#}");
            service["protocol"] == protocol && endpoints == Some(1)
        })?;
    }
    stage.manifests.remove("service-serve")?;
    let mut gone = 0;
    while gone < 4 {
        gone += usize::from(watch.json()?["type"] == "DELETED");
    }
    Ok(())
}

/// Of `serve` over TCP and IPv4: its endpoints and what beside them has left, and the sums of both.
fn tcp_row(stage: &Stage) -> Result<(Value, [u64; 2])> {
    let rows = shown(stage, &["services"])?;
    let row = rows.into_iter().find(|row| row["vip"] == VIP && row["protocol"] == "TCP").context("no row")?;
    let endpoints = row["endpoints"].as_array().context("no endpoints")?;
    let number = |of: &Value, field: &str| of[field].as_u64().with_context(|| format!("{field}: {of:#}"));
    let sum = |field: &str| {
        let all = endpoints.iter().chain([&row["departed"]]);
        all.map(|one| number(one, field)).sum::<Result<u64>>()
    };
    let sums = [sum("flows")?, sum("active")?];
    Ok((row, sums))
}

#[test]
fn what_services_shows_of_endpoints_adds_up_to_the_frontend_also_when_some_have_left() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut open = Connection::open_many(&stage.client.namespace, v4()?, 2)?;
    let pods = open.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>()?;
    ensure!(pods[0] != pods[1], "{pods:?}");
    client::http(&stage.client.namespace, v4()?, 6)?;
    let (row, sums) = tcp_row(&stage)?;
    assert_eq!((sums, &row["counters"]["flows"]), ([8, 2], &8.into()), "{row:#}");
    assert_eq!(row["departed"], serde_json::json!({ "active": 0, "inactive": 0, "flows": 0 }));
    ensure!(!stage.daemon.show(&["services"])?.contains("-> others"), "nothing has left");

    // Listed, but out of the maps: its open flow is told of, and what it had is beside.
    stage.manifests.service(&service()?.annotated("enabled", "true").annotated("clusters", "local"))?;
    stage.wait_for_endpoints(1)?;
    let (row, sums) = tcp_row(&stage)?;
    assert_eq!((sums, &row["departed"]["flows"]), ([8, 2], &4.into()), "{row:#}");
    let out = &row["endpoints"][1];
    ensure!(out["in_maps"] == false && out["active"] == 1 && out["flows"] == 0, "{row:#}");

    // Gone altogether.
    stage.manifests.remove_slice("member1-serve-bcfd6")?;
    stage.daemon.wait_for_services("one endpoint", |rows| {
        let tcp = rows.iter().find(|row| row.vip.to_string() == VIP && row.protocol == "TCP");
        tcp.is_some_and(|row| row.endpoints.len() == 1)
    })?;
    let (row, sums) = tcp_row(&stage)?;
    assert_eq!((sums, &row["departed"]["flows"]), ([8, 2], &4.into()), "{row:#}");
    assert_eq!(row["departed"]["active"], 1, "{row:#}");
    let table = stage.daemon.show(&["services", "default/serve"])?;
    let others = table.lines().find(|line| line.contains("-> others")).context(table.clone())?;
    let cells: Vec<&str> = others.split_whitespace().collect();
    // How many of those that are over are still known is the collector's business.
    ensure!([cells[2], cells[3], cells[5]] == ["-", "1", "4"], "{table}");
    open.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>().map(drop)
}
