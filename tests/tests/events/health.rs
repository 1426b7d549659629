//! A cluster that does not answer, told of where it was asked for.

use crate::stage::{SLICES, Stage};
use anyhow::{Result, ensure};
use mcs_proxy_tests::karmada::{Endpoint, Slice};
use serde_json::Value;
use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

const SETTINGS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: mcs-proxy, namespace: mcs-proxy}, \
                        data: {member1: '{on-failure: drain}'}}";
const CONFIGMAPS: &str = "/api/v1/namespaces/mcs-proxy/configmaps";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/mcs-proxy/events";

#[test]
fn a_cluster_that_does_not_answer_is_a_warning_on_the_settings_for_each_family() -> Result<()> {
    let stage = Stage::new()?;
    let _pod = stage.world.add_serving_pod(&stage.nodes[0], "serve", &["10.12.1.6", "fd10:12:1::6"])?;
    let client = stage.world.add_pod(&stage.nodes[0], "client", &["10.12.1.9", "fd10:12:1::9"])?;
    stage.api.create(CONFIGMAPS, SETTINGS)?;
    let vips: [SocketAddr; 2] = ["10.13.181.116:80".parse()?, "[fd10:13::116]:80".parse()?];
    // Nobody has the imported ones, and no importer takes them back.
    for (name, vip, answering, imported) in [
        ("four", vips[0], "10.12.1.6", ["10.10.0.6", "10.10.0.7", "10.10.0.8"]),
        ("six", vips[1], "fd10:12:1::6", ["fd10:10::6", "fd10:10::7", "fd10:10::8"]),
    ] {
        stage.service(name, &vip.ip().to_string(), "round-robin")?;
        stage.import(&format!("member1-{name}-1"), name, &imported)?;
        // An importer's as well: of this cluster's own the controller would take away what no pod backs.
        let answering = [Endpoint::new(answering, "node-1", "serve")?];
        let slice = Slice::new(&format!("member3-{name}-1"), name, "member2", "member3", &answering);
        stage.api.create(SLICES, &slice.yaml())?;
    }
    let settings = ["--settings", "mcs-proxy/mcs-proxy", "--failure-window", "2s"];
    let mut daemon = stage.daemon_with(0, &settings)?;
    daemon.wait_for_services("all endpoints", |rows| {
        rows.len() == 2 && rows.iter().all(|row| row.endpoints.iter().filter(|it| it.in_maps).count() == 4)
    })?;
    let start = Instant::now();
    let about = |event: &Value, way: &str| {
        event["regarding"]["kind"] == "ConfigMap"
            && event["regarding"]["name"] == "mcs-proxy"
            && event["reason"] == "ClusterUnanswered"
            && event["type"] == "Warning"
            && event["note"].as_str().is_some_and(|note| note.starts_with(way))
    };
    loop {
        client.namespace.run(move || {
            for vip in vips {
                // A router on the way may say that there is nobody, which is no answer.
                drop(TcpStream::connect_timeout(&vip, Duration::from_millis(100)));
            }
            anyhow::Ok(())
        })?;
        let listed = stage.api.get(EVENTS)?;
        let events = listed["items"].as_array().cloned().unwrap_or_default();
        if ["member1 over IPv4: ", "member1 over IPv6: "]
            .iter()
            .all(|way| events.iter().any(|it| about(it, way)))
        {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "{events:#?}\n{}", daemon.log());
        thread::sleep(Duration::from_millis(50));
    }
    daemon.wait_for_services("those that answer alone", |rows| {
        rows.iter().all(|row| row.endpoints.iter().filter(|it| it.in_maps).count() == 1)
    })
}
