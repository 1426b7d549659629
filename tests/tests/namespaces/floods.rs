//! A pod that asks for more than its share, and its neighbours, which do not notice.

use crate::{
    stage::{Stage, v4, v6},
    without_daemon::clients,
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Pod,
    client::{self, Connection},
    karmada::Service,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::Range,
    time::Duration,
};

pub(crate) const NEIGHBOUR: [&str; 2] = ["10.12.0.50", "fd10:12::50"];

pub(crate) fn stage(arguments: &[&str]) -> Result<(Stage, Pod)> {
    let stage = Stage::with(|service: Service| service.annotated("enabled", "true"), arguments)?;
    let neighbour = stage.world.add_pod(&stage.node, "neighbour", &NEIGHBOUR)?;
    Ok((stage, neighbour))
}

pub(crate) fn connect(pod: &Pod, number: usize) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for service in [v4()?, v6()?] {
        for _ in 0..number {
            let mut connection = Connection::open(&pod.namespace, service)?;
            connection.ask()?;
            connections.push(connection);
        }
    }
    Ok(connections)
}

/// How many connections are established: the neighbour's, and the others'.
fn established(stage: &Stage) -> Result<[usize; 2]> {
    let all = clients(stage, "established")?;
    let neighbours = all.iter().filter(|(client, _)| NEIGHBOUR.contains(&client.as_str())).count();
    Ok([neighbours, all.len() - neighbours])
}

/// One query from each port, as a resolver sends them, each answered.
fn query(pod: &Pod, service: SocketAddr, ports: Range<u16>) -> Result<()> {
    let any: IpAddr =
        if service.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    pod.namespace.run(move || {
        for port in ports {
            let socket = UdpSocket::bind((any, port)).with_context(|| format!("port {port}"))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.connect(service)?;
            client::udp_ask(&socket, service, "query")?;
        }
        anyhow::Ok(())
    })
}

#[test]
fn forty_thousand_queries_from_as_many_ports_do_not_fill_a_thousand_established_flows() -> Result<()> {
    let (stage, neighbour) = stage(&["--max-flows", "1024"])?;
    let mut before = connect(&neighbour, 2)?;
    assert_eq!(established(&stage)?, [4, 0]);
    let counted = stage.flows()?;
    for service in [v4()?, v6()?] {
        query(&stage.client, service, 10_000..30_000)?;
    }
    assert_eq!(stage.flows()?, counted + 40_000, "each query is a flow of ours");
    let connections = stage.daemon.show(&["connections", "-o", "json"])?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&connections)?;
    let streams = rows.iter().filter(|row| row["protocol"] == "UDP" && row["state"] == "established");
    assert_eq!(streams.count(), 0, "none has lasted for two seconds");
    for connection in &mut before {
        connection.ask()?;
    }
    let _more = connect(&neighbour, 2)?;
    assert_eq!(established(&stage)?, [8, 0], "there is room");
    Ok(())
}

#[test]
fn a_pod_that_has_used_up_its_share_is_told_of_and_keeps_no_neighbour_from_connecting() -> Result<()> {
    let (mut stage, neighbour) = stage(&["--max-flows-per-interface", "4", "--flow-scan-interval", "1s"])?;
    let mut greedy = connect(&stage.client, 4)?;
    stage.daemon.wait_for_warning("raise --max-flows-per-interface")?;
    let log = stage.daemon.log();
    let line = log.lines().find(|line| line.contains("raise --max-flows-per-interface")).context("a line")?;
    for part in ["map `flows`", "4 of 4 entries that interface ", "times room was lacking"] {
        ensure!(line.contains(part), "no `{part}` in: {line}");
    }

    let _neighbours = connect(&neighbour, 2)?;
    let connections = stage.daemon.show(&["connections", "-o", "json"])?;
    assert_eq!(stage.daemon.connections()?, 8 + 4, "{connections}");
    // Those without room stay transient, and are served all the same.
    for connection in &mut greedy {
        connection.ask()?;
    }
    Ok(())
}
