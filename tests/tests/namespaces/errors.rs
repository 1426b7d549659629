//! ICMP errors about packets on their way to a Service: a pod hears of the VIP that it called, and its kernel finds the
//! socket that is meant.

use crate::stage::{PODS, PODS_V6, SERVICE_PORT, Stage, slice, v4, v6};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Namespace, ServiceRow, client,
    karmada::{Endpoint, Port, Service, Slice},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(5);
/// Ports that a pod's kernel gives nobody by itself, from here on.
const PORT: u16 = 20_200;

/// Hears the ICMP messages that come to a pod.
struct Ear(UdpSocket);

/// An ICMP error.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    from: IpAddr,
    /// Type and code.
    kind: [u8; 2],
    /// Where the packet went that it is about.
    about: SocketAddr,
}

impl Ear {
    fn open(namespace: &Namespace, service: SocketAddr) -> Result<Self> {
        let kind = Type::from(libc::SOCK_RAW);
        let (domain, protocol) = (
            Domain::for_address(service),
            if service.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 },
        );
        let socket = namespace.run(move || Socket::new(domain, kind, Some(protocol)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket.into()))
    }

    /// The next error about a packet from this port.
    fn hear(&self, port: u16) -> Result<Heard> {
        let mut buffer = [0; 2048];
        let start = Instant::now();
        loop {
            ensure!(start.elapsed() < PATIENCE, "nothing about port {port}");
            let (length, from) =
                self.0.recv_from(&mut buffer).with_context(|| format!("about port {port}"))?;
            if let Some((source_port, heard)) = read(from.ip(), &buffer[..length])
                && source_port == port
            {
                return Ok(heard);
            }
        }
    }
}

/// Reads an error, and the port that what it quotes came from. `None`: another message.
fn read(from: IpAddr, bytes: &[u8]) -> Option<(u16, Heard)> {
    // IPv4's header stands before the message; IPv6's does not.
    let header = |bytes: &[u8]| Some(usize::from(bytes.first()? & 15) * 4);
    let (message, is_error): (_, fn(u8) -> bool) = if from.is_ipv4() {
        (bytes.get(header(bytes)?..)?, |kind| matches!(kind, 3 | 11))
    } else {
        (bytes, |kind| kind < 128)
    };
    let kind = [*message.first()?, *message.get(1)?];
    let quote = message.get(8..)?;
    if !is_error(kind[0]) {
        return None;
    }
    let (to, ports): (IpAddr, _) = if from.is_ipv4() {
        let to: [u8; 4] = quote.get(16..20)?.try_into().ok()?;
        (to.into(), quote.get(header(quote)?..)?)
    } else {
        let to: [u8; 16] = quote.get(24..40)?.try_into().ok()?;
        (to.into(), quote.get(40..)?)
    };
    let port = |at: usize| Some(u16::from_be_bytes([*ports.get(at)?, *ports.get(at + 1)?]));
    Some((port(0)?, Heard { from, kind, about: SocketAddr::new(to, port(2)?) }))
}

/// A socket with a port, whose packets go so many hops.
fn socket(namespace: &Namespace, service: SocketAddr, kind: Type, port: u16, hops: u32) -> Result<Socket> {
    let any: IpAddr =
        if service.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = namespace.run(move || Socket::new(Domain::for_address(service), kind, None))?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    if service.is_ipv4() {
        socket.set_ttl_v4(hops)?;
    } else {
        socket.set_unicast_hops_v6(hops)?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Every turn falls on the pod in the other cluster.
fn remote_only(stage: &mut Stage) -> Result<()> {
    for address in [PODS[1], PODS_V6[1]] {
        let mut slice = slice(1, address)?;
        slice.endpoints.clear();
        stage.manifests.slice(&slice)?;
    }
    stage.wait_for_endpoints(1)
}

#[test]
fn a_trace_of_the_route_to_a_vip_names_the_routers_and_the_vip_over_udp_and_tcp() -> Result<()> {
    let mut stage = Stage::new()?;
    remote_only(&mut stage)?;
    let client = stage.client.namespace.clone();
    let routers: [[IpAddr; 2]; 2] = [
        [stage.node.address.into(), stage.remote.address.into()],
        [stage.node.address_v6.into(), stage.remote.address_v6.into()],
    ];
    for (service, routers) in [v4()?, v6()?].into_iter().zip(routers) {
        // Sockets of both families share the ports.
        let first = PORT + 10 * u16::from(service.is_ipv6());
        let ear = Ear::open(&client, service)?;
        let kind = if service.is_ipv4() { [11, 0] } else { [3, 0] };
        for (hops, router) in (1..).zip(routers) {
            let expected = Heard { from: router, kind, about: service };
            let port = first + u16::try_from(hops)?;
            let datagrams = socket(&client, service, Type::DGRAM, port, hops)?;
            datagrams.connect(&service.into())?;
            datagrams.send(&[b'x'; 64])?;
            ensure!(ear.hear(port)? == expected, "UDP, {service}, hop {hops}");

            let stream = socket(&client, service, Type::STREAM, port, hops)?;
            let failed = stream.connect_timeout(&service.into(), PATIENCE).map_err(|error| error.kind());
            // It is this socket that the error is about: the pod's kernel gives up on it.
            ensure!(failed == Err(ErrorKind::HostUnreachable), "{service}, hop {hops}: {failed:?}");
            ensure!(ear.hear(port)? == expected, "TCP, {service}, hop {hops}");
        }
        let datagrams = socket(&client, service, Type::DGRAM, first, 3)?;
        datagrams.connect(&service.into())?;
        client::udp_ask(&datagrams.into(), service, "the third hop is the pod")?;
        let stream = socket(&client, service, Type::STREAM, first, 3)?;
        stream.connect_timeout(&service.into(), PATIENCE)?;
        client::Connection::over(stream.into(), service)?.ask()?;
    }
    Ok(())
}

#[test]
fn a_backend_without_the_port_refuses_in_the_name_of_the_vip_at_once() -> Result<()> {
    let mut stage = Stage::new()?;
    let vips = ["10.13.0.7", "fd10:13::7"];
    let ports = |port| [Port::new("http", "TCP", port), Port::new("echo", "UDP", port)];
    let closed = Service::new("closed", "member2", &vips, &ports(SERVICE_PORT))?;
    stage.manifests.service(&closed.annotated("enabled", "true"))?;
    for (name, address) in [("closed-v4", PODS[0]), ("closed-v6", PODS_V6[0])] {
        let pod = Endpoint::new(address, "member2-node-1", "closed")?;
        let slice = Slice::new(name, "closed", "member2", "member2", &[pod]);
        stage.manifests.slice(&slice.with_ports(&ports(9)))?;
    }
    stage.daemon.wait_for_services("Service `closed` with an endpoint", |rows| {
        let is_whole = |row: &&ServiceRow| row.name == "closed" && row.endpoints.iter().any(|it| it.in_maps);
        rows.iter().filter(is_whole).count() == 4
    })?;
    let client = stage.client.namespace.clone();
    for (vip, kind) in vips.into_iter().zip([[3, 3], [1, 4]]) {
        let service = SocketAddr::new(vip.parse()?, SERVICE_PORT);
        let ear = Ear::open(&client, service)?;
        let start = Instant::now();
        let datagrams = socket(&client, service, Type::DGRAM, PORT, 64)?;
        datagrams.connect(&service.into())?;
        datagrams.send(b"is it open?")?;
        let datagrams = UdpSocket::from(datagrams);
        let refused = datagrams.recv(&mut [0; 64]).map_err(|error| error.kind());
        ensure!(refused == Err(ErrorKind::ConnectionRefused), "{service}: {refused:?}");
        ensure!(ear.hear(PORT)? == Heard { from: service.ip(), kind, about: service });

        let stream = socket(&client, service, Type::STREAM, PORT, 64)?;
        let refused = stream.connect_timeout(&service.into(), PATIENCE).map_err(|error| error.kind());
        ensure!(refused == Err(ErrorKind::ConnectionRefused), "{service}: {refused:?}");
        ensure!(start.elapsed() < PATIENCE, "after {:?}", start.elapsed());
    }
    Ok(())
}

/// The first datagram is too big for a hop on the way and lost; the pod's kernel hears of it and cuts the next ones,
/// whose fragments follow the first.
#[test]
fn large_datagrams_find_the_smaller_mtu_of_the_path() -> Result<()> {
    let mut stage = Stage::new()?;
    remote_only(&mut stage)?;
    for (family, range) in [("-4", "10.10.0.0/16"), ("-6", "fd10:10::/64")] {
        let route = stage.node.namespace.ip(&format!("{family} route show {range}"))?;
        let route = route.lines().next().context("a route")?.trim().to_owned();
        stage.node.namespace.ip(&format!("{family} route change {route} mtu 1300"))?;
    }
    let client = &stage.client.namespace;
    for (service, kind) in [(v4()?, [3, 4]), (v6()?, [2, 0])] {
        // A port each: a process that is just being started may hold the last one's socket for a moment.
        let port = PORT + u16::from(service.is_ipv6());
        let ear = Ear::open(client, service)?;
        let datagrams = socket(client, service, Type::DGRAM, port, 64)?;
        datagrams.connect(&service.into())?;
        let datagram: String = ('a'..='z').cycle().take(1400).collect();
        datagrams.send(datagram.as_bytes())?;
        let heard = ear.hear(port)?;
        ensure!((heard.kind, heard.about) == (kind, service), "{heard:?}");
        let route = client.ip(&format!("route get {}", service.ip()))?;
        ensure!(route.contains("mtu 1300"), "{route}");

        let datagrams = UdpSocket::from(datagrams);
        // What the error has left behind on the socket, if anything.
        datagrams.take_error()?;
        for _ in 0..3 {
            client::udp_ask(&datagrams, service, &datagram)?;
        }
    }
    Ok(())
}
