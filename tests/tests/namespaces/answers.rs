//! What a pod hears other than from a backend: refusals, pings, and routers along the way.

use crate::stage::{Stage, VIP, VIP_V6, v4, v6};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::client::{self, Connection};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

#[test]
fn a_service_without_endpoints_refuses_at_once() -> Result<()> {
    let mut stage = Stage::new()?;
    for name in ["member1-serve-bcfd6", "member1-serve-bcfd6-v6", "serve-mvgj7", "serve-mvgj7-v6"] {
        stage.manifests.remove_slice(name)?;
    }
    stage.wait_for_endpoints(0)?;
    for service in [v4()?, v6()?] {
        let start = Instant::now();
        let refused = stage.client.namespace.run(move || anyhow::Ok(connect(service)))?;
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "{service}: {refused:?}");
        ensure!(start.elapsed() < Duration::from_secs(1), "after {:?}", start.elapsed());

        let socket = client::udp_socket(&stage.client.namespace, service)?;
        socket.send(&[b'x'; 64])?;
        let refused = socket.recv(&mut [0; 64]).err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "{service}: {refused:?}");
    }
    Ok(())
}

/// With no kube-proxy beneath: what passes is lost, so the first of these calls may be.
#[test]
fn a_port_that_the_service_has_not_refuses_at_once() -> Result<()> {
    let stage = Stage::new()?;
    for service in [v4()?, v6()?] {
        let other = SocketAddr::new(service.ip(), service.port() + 1);
        let call = |patience| {
            stage.client.namespace.run(move || anyhow::Ok(TcpStream::connect_timeout(&other, patience).err()))
        };
        let start = Instant::now();
        loop {
            let error = call(Duration::from_millis(100))?.context("an answer")?;
            if error.kind() == ErrorKind::ConnectionRefused {
                break;
            }
            ensure!(start.elapsed() < Duration::from_secs(10), "{other}: {error}");
        }
        for _ in 0..10 {
            let error = call(Duration::from_secs(5))?.context("an answer")?;
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "{other}: {error}");
        }
        let socket = client::udp_socket(&stage.client.namespace, other)?;
        socket.send(&[b'x'; 64])?;
        let refused = socket.recv(&mut [0; 64]).err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "{other}: {refused:?}");
        client::http(&stage.client.namespace, service, 2)?;
    }
    Ok(())
}

#[test]
fn a_ping_to_a_vip_is_answered() -> Result<()> {
    let stage = Stage::new()?;
    for vip in [VIP, VIP_V6] {
        let ping =
            stage.client.namespace.command("ping")?.args(["-n", "-c", "3", "-i", "0.1", vip]).output()?;
        let said = String::from_utf8_lossy(&ping.stdout);
        ensure!(
            said.contains("3 received, 0% packet loss"),
            "{said}{}",
            String::from_utf8_lossy(&ping.stderr)
        );
    }
    Ok(())
}

fn connect(service: SocketAddr) -> Option<ErrorKind> {
    TcpStream::connect_timeout(&service, Duration::from_secs(5)).err().map(|error| error.kind())
}

/// The node's route is narrower than the pods' links: without what the node says about it, large packets vanish.
#[test]
fn a_large_transfer_finds_the_smaller_mtu_of_the_path() -> Result<()> {
    let stage = Stage::new()?;
    for (family, range) in [("-4", "10.10.0.0/16"), ("-6", "fd10:10::/64")] {
        let route = stage.node.namespace.ip(&format!("{family} route show {range}"))?;
        let route = route.lines().next().context("a route")?.trim().to_owned();
        stage.node.namespace.ip(&format!("{family} route change {route} mtu 1300"))?;
    }
    let body = vec![b'x'; 1 << 20];
    for service in [v4()?, v6()?] {
        for _ in 0..2 {
            Connection::open(&stage.client.namespace, service)?.echo(&body)?;
        }
    }
    Ok(())
}
