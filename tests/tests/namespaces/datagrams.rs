//! A socket that goes on from its one port, whatever becomes of the Service it sends to.

use anyhow::Result;
use mcs_proxy_tests::Namespace;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// A port that a pod's kernel gives nobody by itself; IPv6 has the next, as sockets of both families share them.
const PORT: u16 = 20_100;
const PATIENCE: Duration = Duration::from_secs(5);

/// A connected socket with the port.
pub(crate) fn socket(namespace: &Namespace, service: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr =
        if service.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let port = PORT + u16::from(service.is_ipv6());
    let socket = namespace.run(move || UdpSocket::bind((any, port)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(service)?;
    Ok(socket)
}
