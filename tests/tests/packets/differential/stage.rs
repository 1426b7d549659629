//! Who speaks with whom: few addresses and ports, so that conversations meet.

use mcs_proxy_ebpf::abi::Algorithm;
use std::net::{IpAddr, SocketAddr};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

/// Established flows that an interface may have, and all together.
pub(super) const SHARE: u32 = 3;
pub(super) const FLOWS: u32 = 5;

/// What a conversation calls.
#[derive(Clone, Copy)]
pub(super) struct Service {
    /// Number of its VIP.
    pub(super) vip: u8,
    pub(super) port: u16,
    pub(super) protocol: u8,
    pub(super) algorithm: Algorithm,
    pub(super) affinity_seconds: u32,
}

/// The first two and the third have backends in common, so that flows may collide on the wire.
pub(super) const SERVICES: [Service; 6] = [
    service(1, 80, TCP, Algorithm::RoundRobin, 0),
    service(1, 80, UDP, Algorithm::RoundRobin, 0),
    service(2, 80, TCP, Algorithm::Random, 0),
    service(2, 80, UDP, Algorithm::RoundRobin, 2),
    service(2, 81, TCP, Algorithm::Maglev, 0),
    service(1, 80, SCTP, Algorithm::RoundRobin, 0),
];

/// One of those whose VIP is ours with every port; that of the first is not.
pub(super) const OF_WHOLE_VIP: u8 = 2;

const fn service(vip: u8, port: u16, protocol: u8, algorithm: Algorithm, affinity_seconds: u32) -> Service {
    Service { vip, port, protocol, algorithm, affinity_seconds }
}

/// Backends have the ids 1, 2 and 3.
pub(super) const BACKENDS: u8 = 3;
/// Two addresses with two ports each, and the first backend itself.
pub(super) const CLIENTS: u8 = 5;

pub(super) fn vip(v6: bool, number: u8) -> IpAddr {
    address(v6, 13, number)
}

pub(super) fn called(v6: bool, service: u8) -> SocketAddr {
    let Service { vip: number, port, .. } = SERVICES[usize::from(service)];
    SocketAddr::new(vip(v6, number), port)
}

pub(super) fn backend(v6: bool, number: u8) -> SocketAddr {
    // The third keeps the port that clients call.
    SocketAddr::new(address(v6, 10, 6 + number), if number == 2 { 80 } else { 8080 })
}

pub(super) fn client(v6: bool, number: u8) -> SocketAddr {
    let ip = if number == 4 { backend(v6, 0).ip() } else { address(v6, 12, 9 + number / 2) };
    SocketAddr::new(ip, 40_000 + u16::from(number % 2))
}

pub(super) fn router(v6: bool) -> IpAddr {
    address(v6, 18, 254)
}

fn address(v6: bool, network: u8, host: u8) -> IpAddr {
    if v6 {
        [0xfd00, 0x10, network.into(), 0, 0, 0, 0, host.into()].into()
    } else {
        [10, network, 0, host].into()
    }
}
