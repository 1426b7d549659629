//! What changes while traffic flows: endpoints, Services, manifests, the daemon.

use crate::stage::{PODS, SERVICE_PORT, Stage, service, slice, v4};
use anyhow::Result;
use mcs_proxy_tests::{
    Beneath, POD_PORT, ServiceRow,
    client::{self, Connection, Tally},
    karmada::{Endpoint, Port, Service, Slice},
};
use std::net::IpAddr;

fn tally(stage: &Stage, requests: u32) -> Result<Tally> {
    Ok(client::tally(&client::http(&stage.client.namespace, v4()?, requests)?))
}

fn even(each: u32) -> Tally {
    PODS.iter().map(|pod| (pod.parse().unwrap(), each)).collect()
}

#[test]
fn an_endpoint_that_goes_gets_no_new_flows_and_keeps_its_old_ones() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut connections =
        (0..2).map(|_| Connection::open(&stage.client.namespace, v4()?)).collect::<Result<Vec<_>>>()?;
    let pods = connections.iter_mut().map(Connection::ask).collect::<Result<Vec<IpAddr>>>()?;
    assert_ne!(pods[0], pods[1]);

    for address in ["10.12.0.6", "fd10:12::6"] {
        // What is left of a slice whose pods are gone.
        let mut emptied = slice(1, address)?;
        emptied.endpoints.clear();
        emptied.ports.clear();
        stage.manifests.slice(&emptied)?;
    }
    stage.wait_for_endpoints(1)?;
    assert_eq!(tally(&stage, 10)?, Tally::from([(PODS[0].parse()?, 10)]));
    for (connection, pod) in connections.iter_mut().zip(&pods) {
        assert_eq!(connection.ask()?, *pod);
    }

    for address in ["10.12.0.6", "fd10:12::6"] {
        stage.manifests.slice(&slice(1, address)?)?;
    }
    stage.wait_for_endpoints(2)?;
    assert_eq!(tally(&stage, 10)?, even(5));
    Ok(())
}

#[test]
fn a_datagram_for_an_endpoint_that_is_gone_goes_to_another() -> Result<()> {
    let mut stage = Stage::new()?;
    let sockets = [
        client::udp_socket(&stage.client.namespace, v4()?)?,
        client::udp_socket(&stage.client.namespace, v4()?)?,
    ];
    for (number, socket) in sockets.iter().enumerate() {
        client::udp_ask(socket, v4()?, &number.to_string())?;
    }
    stage.manifests.remove_slice("serve-mvgj7")?;
    stage.manifests.remove_slice("serve-mvgj7-v6")?;
    stage.wait_for_endpoints(1)?;
    for socket in &sockets {
        assert_eq!(client::udp_ask(socket, v4()?, "again")?, PODS[0].parse::<IpAddr>()?);
    }
    Ok(())
}

#[test]
fn opting_out_and_in_breaks_no_connection() -> Result<()> {
    let mut stage = Stage::new()?;
    let beneath = Beneath::new(&stage.node.namespace, v4()?, &[PODS[0].parse()?])?;
    let mut ours = Connection::open(&stage.client.namespace, v4()?)?;
    let pod = ours.ask()?;

    stage.manifests.service(&service()?)?;
    stage.daemon.wait_for_services("no Service", <[ServiceRow]>::is_empty)?;
    assert_eq!(ours.ask()?, pod);
    let mut theirs = Connection::open(&stage.client.namespace, v4()?)?;
    theirs.ask()?;
    assert_eq!(beneath.served()?, 1);

    stage.manifests.service(&service()?.annotated("enabled", "true"))?;
    stage.wait_for_endpoints(2)?;
    theirs.ask()?;
    assert_eq!(ours.ask()?, pod);
    assert_eq!(tally(&stage, 10)?, even(5));
    assert_eq!(beneath.served()?, 1);
    Ok(())
}

#[test]
fn of_two_services_with_one_vip_the_older_serves_and_the_other_is_named() -> Result<()> {
    let mut stage = Stage::new()?;
    let ports = [Port::new("http", "TCP", SERVICE_PORT)];
    let mut usurper =
        Service::new("usurper", "member2", &["10.13.181.116"], &ports)?.annotated("enabled", "true");
    usurper.created = "2026-11-24T00:00:00Z".to_owned();
    let other = Service::new("other", "member2", &["10.13.0.7"], &ports)?.annotated("enabled", "true");
    for service in [&usurper, &other] {
        let pod = [Endpoint::new(PODS[1], "member2-node-1", "serve-1")?];
        let slice = Slice::new(&format!("{}-x", service.name), &service.name, "member2", "member2", &pod);
        stage.manifests.slice(&slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]))?;
        stage.manifests.service(service)?;
    }
    stage.daemon.wait_for_services("Service `other`", |rows| rows.iter().any(|row| row.name == "other"))?;
    stage.daemon.wait_for_log("usurper")?;
    assert_eq!(tally(&stage, 10)?, even(5));
    assert_eq!(
        client::http(&stage.client.namespace, "10.13.0.7:80".parse()?, 1)?,
        [PODS[1].parse::<IpAddr>()?]
    );

    // With the older one gone the other takes over.
    stage.manifests.remove("service-serve")?;
    stage.daemon.wait_for_services("Service `usurper` alone at the VIP", |rows| {
        rows.iter().any(|row| row.name == "usurper") && rows.iter().all(|row| row.name != "serve")
    })?;
    assert_eq!(tally(&stage, 3)?, Tally::from([(PODS[1].parse()?, 3)]));
    Ok(())
}

#[test]
fn a_broken_manifest_keeps_its_last_good_content_and_is_named() -> Result<()> {
    let mut stage = Stage::new()?;
    let whole = service()?.annotated("enabled", "true").yaml();
    let half = &whole[..whole.len() / 2];
    stage.manifests.write("service-serve", half)?;
    stage.daemon.wait_for_log("service-serve.yaml")?;
    assert_eq!(tally(&stage, 10)?, even(5));

    let random = service()?.annotated("enabled", "true").annotated("algorithm", "random");
    stage.manifests.service(&random)?;
    stage
        .daemon
        .wait_for_services("algorithm random", |rows| rows.iter().all(|row| row.algorithm == "random"))?;

    // An unknown value: named, and the rest of the Service stays as it was.
    let unknown = service()?.annotated("enabled", "true").annotated("algorithm", "clairvoyant");
    stage.manifests.service(&unknown)?;
    stage.daemon.wait_for_log("clairvoyant")?;
    assert_eq!(tally(&stage, 20)?.values().sum::<u32>(), 20);
    assert_eq!(stage.flows()?, 30);
    Ok(())
}

#[test]
fn traffic_goes_on_while_the_daemon_is_dead_and_when_it_is_back() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut connection = Connection::open(&stage.client.namespace, v4()?)?;
    let pod = connection.ask()?;
    stage.daemon.crash()?;
    assert_eq!(connection.ask()?, pod);
    assert_eq!(tally(&stage, 10)?, even(5));
    assert_eq!(stage.flows()?, 11);

    stage.daemon.launch()?;
    assert_eq!(connection.ask()?, pod);
    assert_eq!(tally(&stage, 10)?, even(5));
    stage.daemon.stop();
    assert_eq!(connection.ask()?, pod);
    assert_eq!(tally(&stage, 10)?, even(5));
    Ok(())
}

#[test]
fn a_pod_that_comes_later_is_served() -> Result<()> {
    let stage = Stage::new()?;
    let late = stage.world.add_pod(&stage.node, "late", &["10.12.0.77", "fd10:12::77"])?;
    // The first SYN may come before the daemon; its retransmission does not.
    let tally = client::tally(&client::http(&late.namespace, v4()?, 10)?);
    assert_eq!(tally, even(5));
    Ok(())
}
