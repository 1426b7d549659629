//! The socket path: processes in the node's own namespace, whose connections no veth sees.

mod annotation;
mod nodes;
mod programs;
mod refused;
mod tcp;
mod udp;

use crate::stage::{PODS, PODS_V6, SERVICE_PORT, Stage, VIP, slice, v4, v6};
use anyhow::{Context as _, Result};
use mcs_proxy_tests::{Cgroup, client, karmada::Slice};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// A VIP as a program on an IPv6 socket names it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn split(answers: &[IpAddr], pods: [&str; 2]) -> Vec<u32> {
    let tally = client::tally(answers);
    let mut shares: Vec<u32> =
        pods.iter().map(|pod| tally.get(&pod.parse().unwrap()).copied().unwrap_or(0)).collect();
    shares.sort_unstable();
    shares
}

/// The slice that lists this pod, without it.
fn emptied(provider: usize, address: &str) -> Result<Slice> {
    let mut slice = slice(provider, address)?;
    slice.endpoints.clear();
    Ok(slice)
}

#[test]
fn host_processes_and_pods_take_turns_on_one_wheel() -> Result<()> {
    let stage = Stage::new()?;
    let mut answers = Vec::new();
    for round in 0..29 {
        let caller = if round % 3 == 0 { &stage.client.namespace } else { &stage.node.namespace };
        answers.extend(client::http(caller, v4()?, 1)?);
    }
    assert_eq!(split(&answers, PODS), [14, 15]);
    assert_eq!(split(&client::http(&stage.node.namespace, v6()?, 29)?, PODS_V6), [14, 15]);
    assert_eq!(stage.flows()?, 58);
    // Host processes leave no flow behind: 10 of the 29 were a pod's.
    assert_eq!(stage.daemon.connections()?, 10);
    Ok(())
}

#[test]
fn a_connected_socket_says_that_its_peer_is_the_vip() -> Result<()> {
    let stage = Stage::new()?;
    for vip in [v4()?, v6()?, mapped(v4()?)] {
        let peers = stage.node.namespace.run(move || -> Result<_> {
            let tcp = TcpStream::connect_timeout(&vip, PATIENCE).with_context(|| format!("connect {vip}"))?;
            let any: IpAddr =
                if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let udp = UdpSocket::bind((any, 0))?;
            udp.connect(vip)?;
            Ok([tcp.peer_addr()?, udp.peer_addr()?])
        })?;
        assert_eq!(peers, [vip; 2]);
    }
    Ok(())
}

#[test]
fn datagrams_of_host_processes_are_answered_by_the_vip() -> Result<()> {
    let stage = Stage::new()?;
    for vip in [v4()?, v6()?] {
        stage.node.namespace.run(move || -> Result<_> {
            let any: IpAddr =
                if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut who = Vec::new();
            for number in 0..5 {
                socket.send_to(format!("datagram {number}").as_bytes(), vip)?;
                let mut answer = [0; 2048];
                let (length, from) = socket.recv_from(&mut answer)?;
                assert_eq!(from, vip);
                who.push(client::who(&String::from_utf8_lossy(&answer[..length]))?);
            }
            // One socket, one backend; and connected, the same again.
            assert!(who.windows(2).all(|pair| pair[0] == pair[1]), "{who:?}");
            socket.connect(vip)?;
            assert!(client::udp_ask(&socket, vip, "connected").is_ok());
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_unconnected_socket_goes_elsewhere_when_its_backend_is_gone() -> Result<()> {
    let mut stage = Stage::new()?;
    let vip = v4()?;
    let ask = |socket: UdpSocket| -> Result<(UdpSocket, IpAddr)> {
        socket.send_to(b"who", vip)?;
        let mut answer = [0; 2048];
        let (length, from) = socket.recv_from(&mut answer)?;
        assert_eq!(from, vip);
        let who = client::who(&String::from_utf8_lossy(&answer[..length]))?;
        Ok((socket, who))
    };
    let socket = stage.node.namespace.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (socket, first) = ask(socket)?;
    let gone = PODS.iter().position(|pod| first == pod.parse::<IpAddr>().unwrap()).unwrap();
    stage.manifests.slice(&emptied(gone, PODS[gone])?)?;
    stage.manifests.slice(&emptied(gone, PODS_V6[gone])?)?;
    stage.wait_for_endpoints(1)?;
    let (_, second) = ask(socket)?;
    assert_ne!(first, second);
    Ok(())
}

#[test]
fn a_host_process_is_refused_at_once_when_nobody_serves() -> Result<()> {
    let mut stage = Stage::new()?;
    for provider in [0, 1] {
        stage.manifests.slice(&emptied(provider, PODS[provider])?)?;
        stage.manifests.slice(&emptied(provider, PODS_V6[provider])?)?;
    }
    stage.wait_for_endpoints(0)?;
    for vip in [v4()?, v6()?, mapped(v4()?)] {
        let kinds = stage.node.namespace.run(move || -> Result<_> {
            let tcp = TcpStream::connect_timeout(&vip, PATIENCE).unwrap_err();
            let any: IpAddr =
                if vip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let udp = UdpSocket::bind((any, 0))?.send_to(b"who", vip).unwrap_err();
            Ok([tcp.kind(), udp.kind()])
        })?;
        assert_eq!(kinds, [ErrorKind::ConnectionRefused; 2], "{vip}");
    }
    Ok(())
}

#[test]
fn sockets_of_another_node_on_this_kernel_are_left_alone() -> Result<()> {
    let stage = Stage::new()?;
    let other = &stage.remote.namespace;
    let vip = v4()?;
    let reached = other.run(move || -> Result<_> {
        Ok(TcpStream::connect_timeout(&vip, Duration::from_millis(200)).is_ok())
    })?;
    assert!(!reached, "{VIP}:{SERVICE_PORT} is served by member2's node alone");
    assert_eq!(stage.flows()?, 0);
    Ok(())
}

/// With `all`, whoever is in the cgroup is served, wherever it is: so this test has a cgroup of its own.
#[test]
fn with_all_a_pod_is_served_by_its_socket_and_has_no_flow() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let path = cgroup.path().display().to_string();
    let stage = Stage::with(
        |service| service.annotated("enabled", "true"),
        &["--socket-path", "all", "--cgroup", &path],
    )?;
    let url = format!("http://{VIP}/");
    let script = format!("echo $$ > {path}/cgroup.procs && exec curl --silent --fail --max-time 5 {url}");
    let mut answers = Vec::new();
    for _ in 0..29 {
        let output = stage.client.namespace.command("sh")?.args(["-c", &script]).output()?;
        answers.push(client::who(&String::from_utf8_lossy(&output.stdout))?);
    }
    assert_eq!(split(&answers, PODS), [14, 15]);
    assert_eq!(stage.flows()?, 29);
    assert_eq!(stage.daemon.connections()?, 0);
    // Outside the cgroup it is a matter of packets.
    assert_eq!(client::http(&stage.client.namespace, v4()?, 1)?.len(), 1);
    assert_eq!(stage.daemon.connections()?, 1);
    Ok(())
}

#[test]
fn switched_off_the_socket_path_leaves_sockets_alone() -> Result<()> {
    let mut stage = Stage::new()?;
    assert_eq!(client::http(&stage.node.namespace, v4()?, 1)?.len(), 1);
    stage.daemon.stop();
    // Pinned, it serves without the daemon.
    assert_eq!(client::http(&stage.node.namespace, v4()?, 1)?.len(), 1);
    stage.daemon.launch_with(&["--socket-path", "off"])?;
    let vip = v4()?;
    let reached = stage.node.namespace.run(move || -> Result<_> {
        Ok(TcpStream::connect_timeout(&vip, Duration::from_millis(200)).is_ok())
    })?;
    assert!(!reached, "nothing is beneath us here");
    Ok(())
}
