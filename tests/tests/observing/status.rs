use crate::stage::{PODS, Stage, VIP, service, slice, until, vip};
use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, MapData};
use mcs_proxy::dataplane::{pins::PinDir, sys::Access};
use mcs_proxy_ebpf::abi::{Address, MapName, Port, Protocol, ServiceKey};
use mcs_proxy_tests::client;
use std::net::IpAddr;

#[test]
fn a_daemon_that_is_well_says_so_part_by_part_and_its_pins_do_after_it() -> Result<()> {
    let mut stage = Stage::new(&["--flow-scan-interval", "1s"])?;
    client::http(&stage.client.namespace, vip(), 2)?;
    until("the flows were looked through", || {
        Ok(stage.run(&[], &["status"])?.line("flows")?["says"]
            .as_str()
            .is_some_and(|says| says.contains("ago")))
    })?;
    let said = stage.run(&[], &["status"])?;
    ensure!(said.code == 0 && said.json["told_by"] == "daemon", "{:#}", said.json);
    for (part, words) in [
        ("daemon", "version"),
        ("source", "every kind was listed"),
        ("mode", "active"),
        ("transactions", "1 frontends, 2 slots"),
        ("drift", "hold what they should: 1 frontends"),
        ("room", "fullest"),
        ("interfaces", "2 attached by tcx"),
        ("sockets", "the node's own processes"),
        ("cluster name", "member2"),
        ("objects", "no problems"),
    ] {
        said.expect(part, "ok", words)?;
    }
    let service = said.json["sources"].as_array().context("no sources")?[0].clone();
    ensure!(
        service["kind"] == "Service" && service["synced"] == true && service["events"] == 1,
        "{service:#}"
    );
    let maps = said.json["maps"].as_array().context("no maps")?;
    ensure!(maps.iter().any(|map| map["map"] == "flows" && map["flag"] == "--max-flows"), "{maps:#?}");

    stage.daemon.crash()?;
    let said = stage.run(&[], &["status"])?;
    ensure!(said.code == 5 && said.json["told_by"] == "pins", "{:#}", said.json);
    said.expect("daemon", "failed", "goes on forwarding")?;
    said.expect("pins", "ok", "1 frontends")?;
    said.expect("drift", "ok", "1 frontends")?;
    Ok(())
}

/// Somebody takes a frontend out of the map behind the daemon's back.
#[test]
fn what_the_maps_lack_is_told_by_object_in_status_metrics_and_log() -> Result<()> {
    let mut stage = Stage::new(&["--flow-scan-interval", "1s"])?;
    let pins = PinDir::new(stage.daemon.pin_dir());
    let mut services: HashMap<MapData, ServiceKey, u32> =
        pins.open_as(MapName::Services, Access::ReadWrite)?;
    let address = Address::from(VIP.parse::<IpAddr>()?);
    services.remove(&ServiceKey::new(address, Port::new(80), Protocol::Tcp.number()))?;

    let said = stage.run(&[], &["status"])?;
    ensure!(said.code == 5, "{:#}", said.json);
    said.expect("drift", "failed", "1 missing")?;
    let object = &said.json["drift"]["objects"][0];
    ensure!(object["service"] == "default/serve" && object["what"] == "missing", "{object:#}");
    ensure!(object["frontend"] == "TCP 10.13.181.116:80", "{object:#}");
    stage.daemon.wait_for_warning("the maps do not hold what they should")?;
    ensure!(stage.metric("mcs_proxy_drift_frontends", &["what=\"missing\""])? == 1.0);
    Ok(())
}

/// A cluster's name that does not fit, an object that makes no sense, an interface's share: each is a line.
#[test]
fn what_is_wrong_with_objects_names_and_room_is_a_line_of_its_own() -> Result<()> {
    let stage = Stage::new(&["--max-frontends", "2", "--max-backends", "4"])?;
    let bad = service("bad", "10.13.0.3")?.annotated("algorithm", "best");
    stage.manifests.service(&bad)?;
    stage.manifests.service(&service("third", "10.13.0.4")?)?;
    stage.manifests.slice(&slice("member1-bad-x", "bad", "member1", PODS[0])?)?;
    until("it is told", || {
        let said = stage.run(&[], &["status"])?;
        Ok(said.expect("objects", "warning", "problems").is_ok()
            && said.expect("room", "failed", "--max-frontends").is_ok()
            && said.code == 5)
    })?;
    ensure!(stage.metric("mcs_proxy_rejected_frontends", &[])? == 1.0);
    ensure!(stage.metric("mcs_proxy_problems", &[])? >= 1.0);
    Ok(())
}

/// A slip in a tier list is no error: the cluster may come yet.
#[test]
fn a_tier_that_names_no_cluster_is_warned_of_once_and_shown_until_the_cluster_comes() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    stage.manifests.service(&service("serve", VIP)?.annotated("clusters", "membr1,others"))?;
    stage.daemon.wait_for_warning("no cluster called `membr1` is known")?;
    let words = "Service default/serve: metadata.annotations[mcs-proxy.io/clusters]: no cluster called `membr1` is known";
    until("status tells of it", || {
        let said = stage.run(&[], &["status"])?;
        Ok(said.expect("problem", "warning", words).is_ok()
            && said.expect("problem", "warning", "known are member1, member2").is_ok()
            && said.expect("objects", "warning", "1 problems").is_ok())
    })?;
    let explained = stage.daemon.show(&["explain", "default/serve"])?;
    ensure!(explained.contains(&format!("Problem: {words}")), "{explained}");
    client::http(&stage.client.namespace, vip(), 2)?;

    // Whatever else changes is no news.
    stage.manifests.remove_slice("serve-mvgj7")?;
    stage.daemon.wait_for_services("one endpoint", |rows| rows[0].endpoints.len() == 1)?;
    let told = |log: &str| log.lines().filter(|line| line.contains("membr1")).count();
    assert_eq!(told(&stage.daemon.log()), 1, "{}", stage.daemon.log());

    stage.manifests.slice(&slice("membr1-serve-x", "serve", "membr1", PODS[1])?)?;
    stage.daemon.wait_for_log("solved: Service default/serve")?;
    until("status is well", || {
        Ok(stage.run(&[], &["status"])?.expect("objects", "ok", "no problems").is_ok())
    })
}
