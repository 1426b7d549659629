//! What is wrong with an object is written beside it, once for the whole cluster.

use crate::stage::{SERVICES, Stage};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/mcs-proxy";

#[test]
fn a_problem_that_every_node_sees_is_one_event_on_its_object() -> Result<()> {
    let stage = Stage::new()?;
    stage.service("serve", "10.13.181.116", "randm")?;
    let mut daemons = [stage.daemon(0)?, stage.daemon(1)?];
    for daemon in &mut daemons {
        daemon.wait_for_warning("`randm`")?;
    }
    let event = stage.wait_for_events("serve", 1)?.remove(0);
    // The second node was told that the Event exists.
    stage.wait_for_attempts(409, 1)?;
    stage.wait_for_events("serve", 1)?;
    let uid = stage.api.get(&format!("{SERVICES}/serve"))?["metadata"]["uid"].clone();
    let regarding =
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "serve", "uid": uid});
    ensure!(event["regarding"] == regarding, "{event:#?}");
    ensure!(event["type"] == "Warning" && event["reason"] == "InvalidAnnotation", "{event:#?}");
    ensure!(["node-1", "node-2"].iter().any(|node| event["reportingInstance"] == *node), "{event:#?}");
    let note = event["note"].as_str().unwrap();
    ensure!(
        note.contains("metadata.annotations[mcs-proxy.io/algorithm]") && note.contains("`randm`"),
        "{note}"
    );

    // Another slip is another problem; a daemon that starts anew does not write again what is written.
    let slip = json!({"metadata": {"annotations": {"mcs-proxy.io/algorithm": "rand"}}});
    stage.api.patch(&format!("{SERVICES}/serve"), &slip)?;
    stage.wait_for_events("serve", 2)?;
    stage.wait_for_attempts(409, 2)?;
    daemons[0].stop();
    daemons[0].launch()?;
    stage.wait_for_attempts(409, 3)?;
    stage.wait_for_events("serve", 2)?;
    Ok(())
}

#[test]
fn refused_endpoints_of_both_families_are_one_event_a_slice_with_their_count() -> Result<()> {
    let stage = Stage::new()?;
    stage.service("serve", "10.13.181.116", "random")?;
    stage.service("six", "fd10:13::116", "random")?;
    stage.service("other", "10.13.0.9", "random")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6", "10.13.0.9", "10.13.181.116"])?;
    stage.import("member1-six-1", "six", &["fd10:10::6", "fd10:13::116"])?;
    let mut daemons = [stage.daemon(0)?, stage.daemon(1)?];
    let event = stage.wait_for_events("member1-serve-1", 1)?.remove(0);
    ensure!(
        event["reason"] == "RejectedEndpoints" && event["regarding"]["kind"] == "EndpointSlice",
        "{event:#?}"
    );
    let note = event["note"].as_str().unwrap();
    ensure!(note.contains("a ClusterIP of this cluster, and 1 more are refused"), "{note}");
    let event = stage.wait_for_events("member1-six-1", 1)?.remove(0);
    ensure!(
        event["note"].as_str().unwrap().contains("fd10:13::116 is a ClusterIP of this cluster"),
        "{event:#?}"
    );
    stage.wait_for_attempts(409, 2)?;
    for daemon in &mut daemons {
        daemon.wait_for_services("the good endpoints alone", |rows| {
            let in_maps = |name: &str| -> Vec<String> {
                let of = rows.iter().filter(|row| row.name == name).flat_map(|row| &row.endpoints);
                of.filter(|it| it.in_maps).map(|it| it.address.to_string()).collect()
            };
            in_maps("serve") == ["10.10.0.6"]
                && in_maps("six") == ["fd10:10::6"]
                && in_maps("other").is_empty()
        })?;
    }
    Ok(())
}

#[test]
fn without_the_right_to_create_events_all_else_works_and_one_line_says_so() -> Result<()> {
    let stage = Stage::new()?;
    let mut rules = stage.api.get(ROLE)?["rules"].clone();
    let granted = rules.clone();
    rules.as_array_mut().unwrap().retain(|rule| rule["apiGroups"] != json!(["events.k8s.io"]));
    stage.api.patch(ROLE, &json!({"rules": rules}))?;
    let start = Instant::now();
    while stage.api.may("create", "events.k8s.io", "events", "")? {
        ensure!(start.elapsed() < Duration::from_secs(30), "the right stays");
    }
    stage.service("serve", "10.13.181.116", "randm")?;
    stage.service("more", "10.13.181.117", "randm")?;
    stage.import("member1-serve-1", "serve", &["10.10.0.6"])?;
    let mut daemon = stage.daemon(0)?;
    daemon.wait_for_warning("grant create on events")?;
    stage.wait_for_attempts(403, 2)?;
    daemon.wait_for_services("the endpoint", |rows| {
        rows.iter().any(|row| row.name == "serve" && row.endpoints.iter().any(|endpoint| endpoint.in_maps))
    })?;
    let lines = daemon.log().lines().filter(|line| line.contains("grant create on events")).count();
    ensure!(lines == 1, "{}", daemon.log());

    stage.api.patch(ROLE, &json!({"rules": granted}))?;
    daemon.wait_for_log("Events are written again")?;
    stage.wait_for_events("serve", 1)?;
    stage.wait_for_events("more", 1)?;
    Ok(())
}
