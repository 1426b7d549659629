//! Ways of connecting, beside the plain one.

use super::{PATIENCE, emptied, mapped};
use crate::stage::{PODS, PODS_V6, Stage, slice, v4, v6};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::{EndpointRow, client::Connection};
use socket2::{Domain, Socket, Type};
use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: serve\r\nConnection: close\r\n\r\n";

/// TCP sockets of this thread's namespace whose SYN carried data that was accepted (tcp(7), RFC 7413).
fn fast_opens() -> Result<u64> {
    let counters = fs::read_to_string("/proc/thread-self/net/netstat")?;
    let lines: Vec<_> = counters.lines().filter_map(|line| line.strip_prefix("TcpExt: ")).collect();
    let [names, values] = lines.as_slice() else { anyhow::bail!("{counters}") };
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "TCPFastOpenActive").context("no such counter")?;
    Ok(value.parse()?)
}

#[test]
fn a_connection_whose_syn_carries_the_request_reaches_a_backend() -> Result<()> {
    let mut stage = Stage::new()?;
    let fast = [["10.10.0.7", "fd10:10::7"], ["10.12.0.7", "fd10:12::7"]];
    let mut pods = Vec::new();
    for (provider, node) in [&stage.remote, &stage.node].into_iter().enumerate() {
        let mut pod = stage.world.add_pod(node, &format!("fast-{provider}"), &fast[provider])?;
        // 2: for servers; 0x400: for all who listen from now on, whether they ask or not.
        pod.namespace.sysctl("net/ipv4/tcp_fastopen", "1026")?;
        pod.serve()?;
        for address in fast[provider] {
            stage.manifests.slice(&slice(provider, address)?)?;
        }
        pods.extend(pod.addresses.clone());
        stage.pods.push(pod);
    }
    stage.daemon.wait_for_services("the fast pods alone", |rows| {
        let is_fast = |endpoint: &&EndpointRow| endpoint.in_maps && pods.contains(&endpoint.address);
        rows.len() == 4 && rows.iter().all(|row| row.endpoints.iter().filter(is_fast).count() == 2)
    })?;
    for vip in [v4()?, v6()?, mapped(v4()?)] {
        stage.node.namespace.run(move || -> Result<_> {
            let before = fast_opens()?;
            // The first connection to each backend brings the cookie, without which there is no data in the SYN.
            for _ in 0..6 {
                let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to_with_flags(REQUEST, &vip.into(), libc::MSG_FASTOPEN)?;
                let mut stream = TcpStream::from(socket);
                assert_eq!(stream.peer_addr()?, vip);
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                ensure!(answer.contains("hello from cluster"), "{answer}");
            }
            ensure!(fast_opens()? >= before + 4, "{vip}: data in {} SYNs", fast_opens()? - before);
            Ok(())
        })?;
    }
    Ok(())
}

/// What `connect` says at once, and the stream.
fn start(vip: SocketAddr) -> Result<(Option<std::io::Error>, TcpStream)> {
    let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let said = socket.connect(&vip.into()).err();
    Ok((said, socket.into()))
}

fn await_connection(stream: &TcpStream) -> Result<SocketAddr> {
    let start = Instant::now();
    loop {
        match stream.peer_addr() {
            Ok(peer) => return Ok(peer),
            Err(error) if error.kind() == ErrorKind::NotConnected && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn a_connect_that_does_not_block_gets_there_or_is_refused_at_once() -> Result<()> {
    let mut stage = Stage::new()?;
    for vip in [v4()?, v6()?, mapped(v4()?)] {
        stage.node.namespace.run(move || -> Result<_> {
            let (said, stream) = start(vip)?;
            assert_eq!(said.and_then(|error| error.raw_os_error()), Some(libc::EINPROGRESS));
            assert_eq!(await_connection(&stream)?, vip);
            stream.set_nonblocking(false)?;
            Connection::over(stream, vip)?.ask()?;
            Ok(())
        })?;
    }
    for provider in [0, 1] {
        stage.manifests.slice(&emptied(provider, PODS[provider])?)?;
        stage.manifests.slice(&emptied(provider, PODS_V6[provider])?)?;
    }
    stage.wait_for_endpoints(0)?;
    for vip in [v4()?, v6()?, mapped(v4()?)] {
        let said = stage.node.namespace.run(move || start(vip))?.0;
        assert_eq!(said.map(|error| error.kind()), Some(ErrorKind::ConnectionRefused), "{vip}");
    }
    Ok(())
}

#[test]
fn a_socket_on_ipv6_speaks_to_an_ipv4_service_by_its_mapped_address() -> Result<()> {
    let stage = Stage::new()?;
    let vip = mapped(v4()?);
    stage.node.namespace.run(move || -> Result<_> {
        let mut stream = TcpStream::connect_timeout(&vip, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("hello from cluster"), "{answer}");
        let socket = std::net::UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"who", vip)?;
        assert_eq!(socket.recv_from(&mut [0; 2048])?.1, vip);
        Ok(())
    })
}
