//! The daemon is killed under live flows: what is pinned carries on.

use crate::{
    interfaces::wait_for,
    stage::{Stage, v4, v6},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    client::{self, Connection},
    karmada::Service,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

/// Connections, and sockets, of each family.
const EACH: usize = 4;

/// Flows of both families and both protocols, and who answers on each.
struct Flows {
    connections: Vec<(Connection, IpAddr)>,
    sockets: Vec<(UdpSocket, SocketAddr, IpAddr)>,
}

impl Flows {
    fn open(stage: &Stage) -> Result<Self> {
        let (mut connections, mut sockets) = (Vec::new(), Vec::new());
        for service in [v4()?, v6()?] {
            for _ in 0..EACH {
                let mut connection = Connection::open(&stage.client.namespace, service)?;
                let backend = connection.ask()?;
                connections.push((connection, backend));
                let socket = client::udp_socket(&stage.client.namespace, service)?;
                let backend = client::udp_ask(&socket, service, "first")?;
                sockets.push((socket, service, backend));
            }
        }
        Ok(Self { connections, sockets })
    }

    /// Everyone answers, and whoever answered at first.
    fn go_on(&mut self, when: &str) -> Result<()> {
        for (connection, backend) in &mut self.connections {
            ensure!(connection.ask()? == *backend, "{when}: another backend than {backend} over TCP");
        }
        for (socket, service, backend) in &self.sockets {
            ensure!(
                client::udp_ask(socket, *service, when)? == *backend,
                "{when}: another backend than {backend} over UDP"
            );
        }
        Ok(())
    }
}

#[test]
fn flows_go_on_and_new_ones_begin_without_the_daemon_and_a_restart_changes_none() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut flows = Flows::open(&stage)?;
    let backends: BTreeSet<IpAddr> = flows.connections.iter().map(|(_, backend)| *backend).collect();
    assert_eq!(backends.len(), 4, "two of each family, so that a change would show");
    assert_eq!(stage.daemon.connections()?, 4 * EACH);

    stage.daemon.crash()?;
    assert!(!stage.daemon.is_running()?);
    flows.go_on("without the daemon")?;
    let before = stage.flows()?;
    for service in [v4()?, v6()?] {
        let answers = client::tally(&client::http(&stage.client.namespace, service, 4)?);
        assert_eq!(answers.into_values().collect::<Vec<_>>(), [2, 2]);
    }
    assert_eq!(stage.flows()?, before + 8, "new flows are ours");

    let held = stage.daemon.connections()?;
    stage.daemon.launch()?;
    assert_eq!(stage.daemon.connections()?, held);
    flows.go_on("after the restart")
}

/// Clients, with their ports, of TCP flows in this state.
pub(crate) fn clients(stage: &Stage, state: &str) -> Result<BTreeSet<(String, u64)>> {
    let text = stage.daemon.show(&["connections", "-o", "json"])?;
    let rows: Vec<Value> = serde_json::from_str(&text).context("connections -o json")?;
    rows.iter()
        .filter(|row| row["protocol"] == "TCP" && row["state"] == state)
        .map(|row| {
            let client = row["client"].as_str().context("no client")?.to_owned();
            Ok((client, row["client_port"].as_u64().context("no port")?))
        })
        .collect()
}

#[test]
fn established_flows_that_are_silent_or_closed_go_without_the_daemon_and_those_in_use_stay() -> Result<()> {
    let opted_in = |service: Service| service.annotated("enabled", "true");
    let mut stage = Stage::with(opted_in, &["--tcp-timeout-established", "5s"])?;
    let services = [v4()?, v6()?];
    let open = |number: usize| -> Result<Vec<Connection>> {
        let each = services.iter().flat_map(|&service| std::iter::repeat_n(service, number));
        each.map(|service| {
            let mut connection = Connection::open(&stage.client.namespace, service)?;
            connection.ask()?;
            Ok(connection)
        })
        .collect()
    };
    let mut in_use = open(1)?;
    let kept = clients(&stage, "established")?;
    let silent = open(EACH)?;
    let all = clients(&stage, "established")?;
    assert_eq!((kept.len(), all.len()), (2, 2 + 2 * EACH));
    stage.daemon.crash()?;

    wait_for("end of what is silent or closed", || {
        for connection in &mut in_use {
            connection.ask()?;
        }
        // It is new flows that have the old ones looked at.
        for service in services {
            client::http(&stage.client.namespace, service, 1)?;
        }
        let left = clients(&stage, "established")?;
        ensure!(left.is_superset(&kept), "a flow in use is gone: {left:?}, {kept:?}");
        Ok(left == kept)
    })?;
    assert_eq!(clients(&stage, "half-closed")?, BTreeSet::new());
    assert!(!clients(&stage, "time-wait")?.is_empty(), "closed ones may be evicted");
    assert!(!stage.daemon.is_running()?);
    drop(silent);
    Ok(())
}
