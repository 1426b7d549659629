//! One port of a client's for several conversations that would be one on the wire.

use crate::stage::{PODS, PODS_V6, SERVICE_PORT, Stage, v4, v6};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Namespace, POD_PORT,
    client::{self, Connection},
    karmada::{Endpoint, Port, Service, Slice},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};
use tokio::net::TcpSocket;

/// A port that a pod's kernel gives nobody by itself.
const PORT: u16 = 20_000;

/// Connects from a port that may be in use towards another address.
pub(crate) fn open_from_port(namespace: &Namespace, to: SocketAddr) -> Result<Connection> {
    let stream = namespace
        .run(move || -> Result<TcpStream> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let any: IpAddr =
                    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                socket.bind(SocketAddr::new(any, PORT))?;
                let stream = tokio::time::timeout(Duration::from_secs(5), socket.connect(to)).await??;
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream)
            })
        })
        .with_context(|| format!("port {PORT} to {to}"))?;
    Connection::over(stream, to)
}

#[test]
fn a_direct_connection_and_one_by_the_vip_from_the_same_port_are_told_apart() -> Result<()> {
    let stage = Stage::new()?;
    let client = &stage.client.namespace;
    for (service, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
        let [first, second] = pods.map(|pod| SocketAddr::new(pod.parse().unwrap(), POD_PORT));
        // Whichever turn it is, it falls on the other pod.
        let mut direct = open_from_port(client, first)?;
        ensure!(direct.ask()? == first.ip());
        let mut by_vip = open_from_port(client, service)?;
        ensure!(by_vip.ask()? == second.ip());
        drop(by_vip);
        // With both of them called directly, it goes by another port.
        let mut other = open_from_port(client, second)?;
        let mut by_vip = open_from_port(client, service)?;
        for _ in 0..3 {
            ensure!(direct.ask()? == first.ip());
            ensure!(other.ask()? == second.ip());
            ensure!(pods.contains(&by_vip.ask()?.to_string().as_str()));
        }
        let body = vec![b'x'; 1 << 20];
        by_vip.echo(&body)?;
        direct.echo(&body)?;
    }
    Ok(())
}

/// A socket that calls the Service, and then the pod that has answered; or that is served by its own calls, as on a node.
#[test]
fn datagrams_of_one_socket_to_the_vip_and_to_its_pods_are_answered_by_whom_they_were_sent_to() -> Result<()> {
    let stage = Stage::new()?;
    for namespace in [&stage.client.namespace, &stage.node.namespace] {
        for service in [v4()?, v6()?] {
            let any: IpAddr = match service {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = client::udp_socket_at(namespace, SocketAddr::new(any, PORT))?;
            for _ in 0..5 {
                let pod = SocketAddr::new(client::udp_ask_at(&socket, service, "by the VIP")?, POD_PORT);
                for words in ["directly", "directly again"] {
                    ensure!(client::udp_ask_at(&socket, pod, words)? == pod.ip());
                }
            }
            // Connected to the pod, it takes answers from nobody else.
            let pod = SocketAddr::new(client::udp_ask_at(&socket, service, "by the VIP")?, POD_PORT);
            socket.connect(pod)?;
            ensure!(client::udp_ask(&socket, pod, "connected")? == pod.ip());
        }
    }
    Ok(())
}

#[test]
fn two_vips_with_one_backend_are_told_apart_by_a_client_with_one_port() -> Result<()> {
    let mut stage = Stage::new()?;
    let vips = [("one", "10.13.0.7"), ("two", "10.13.0.8"), ("three", "10.13.0.9")];
    for (name, vip) in vips {
        let ports = [Port::new("http", "TCP", SERVICE_PORT)];
        stage
            .manifests
            .service(&Service::new(name, "member2", &[vip], &ports)?.annotated("enabled", "true"))?;
        let pod = [Endpoint::new(PODS[1], "member2-node-1", "serve-1")?];
        let slice = Slice::new(&format!("{name}-x"), name, "member2", "member2", &pod);
        stage.manifests.slice(&slice.with_ports(&[Port::new("http", "TCP", POD_PORT)]))?;
    }
    stage.daemon.wait_for_services("three more Services with an endpoint", |rows| {
        vips.iter().all(|(name, _)| {
            rows.iter().any(|row| &row.name == name && row.endpoints.iter().any(|endpoint| endpoint.in_maps))
        })
    })?;
    let mut connections = vips
        .iter()
        .map(|(_, vip)| open_from_port(&stage.client.namespace, SocketAddr::new(vip.parse()?, SERVICE_PORT)))
        .collect::<Result<Vec<_>>>()?;
    let body = vec![b'x'; 1 << 18];
    for _ in 0..3 {
        for connection in &mut connections {
            ensure!(connection.echo(&body)? == PODS[1].parse::<IpAddr>()?);
        }
    }
    Ok(())
}
