//! TCP connections to backends of clusters that the settings drop (`state: drop`).
//!
//! A packet of a TCP flow asks for nothing but its flow, so it is there that a connection is ended: by a mark
//! ([`FlowState::CUT`]), upon which the pod's next packet is answered by a RST. A connection that nobody has answered yet is
//! forgotten in place of that: its SYN, sent again, opens another, to another backend.
//!
//! No packet of the socket path's connections is looked at. Their sockets are closed; the kernel lists with each what the
//! programs keep with it, which is the VIP that it called.

use super::{
    flows::reply_key,
    pins::{PinDir, PinsError},
    sock_diag::{SockDiag, SockDiagError},
    sys::{self, Access, SysError},
};
use crate::desired::FrontendKey;
use aya::maps::{HashMap, MapData, MapError};
use mcs_proxy_ebpf::abi::{Address, Flow, FlowState, MapName, Port, Protocol, Reply, Tuple};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::AsFd,
};

/// Backends whose connections are to end, by frontend.
pub type Dropped = BTreeMap<FrontendKey, Vec<SocketAddr>>;

/// `BPF_EXIST`: only what is there still.
const EXIST: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum EndedError {
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error("map `{map}`: {source}", map = .map.as_str())]
    Scan { map: MapName, source: SysError },
    #[error("map `{map}`: {source}", map = .map.as_str())]
    Write { map: MapName, source: MapError },
    #[error(transparent)]
    Sockets(#[from] SockDiagError),
}

/// Ends those connections, and returns how many there were. What has been ended before is left as it is.
///
/// Looks at every flow, so not for the task that writes the maps. One that is confirmed meanwhile may be missed: look again.
///
/// # Errors
/// The maps are gone.
pub fn end_connections(dir: &PinDir, dropped: &Dropped) -> Result<usize, EndedError> {
    let targets = targets(dropped);
    if targets.is_empty() {
        return Ok(0);
    }
    let pairs = [(MapName::Flows, MapName::Replies), (MapName::Transient, MapName::TransientReplies)];
    pairs.into_iter().try_fold(0, |ended, (flows, replies)| Ok(ended + end(dir, flows, replies, &targets)?))
}

fn targets(dropped: &Dropped) -> BTreeSet<Target> {
    let tcp = dropped.iter().filter(|(key, _)| key.protocol == Protocol::Tcp);
    tcp.flat_map(|(key, backends)| {
        backends.iter().map(|backend| Target::new((key.vip, key.port).into(), *backend))
    })
    .collect()
}

/// Closes the sockets of this thread's network namespace that the socket path has connected to such backends: whoever waits
/// on one, or next uses it, gets ECONNABORTED. Returns how many there were.
///
/// # Errors
/// The maps are gone, or the kernel can't.
pub fn close_sockets(dir: &PinDir, dropped: &Dropped) -> Result<usize, EndedError> {
    let targets = targets(dropped);
    if targets.is_empty() {
        return Ok(0);
    }
    let peers = dir.open(MapName::SocketPeers, Access::ReadWrite)?;
    let diag = SockDiag::open()?;
    let mut closed = 0;
    for (socket, stored) in diag.tcp_with(peers.as_fd())? {
        let target = called(&stored).filter(|target| target.0[1] == socket.peer());
        if target.is_some_and(|target| targets.contains(&target)) && diag.close(&socket)? {
            closed += 1;
        }
    }
    Ok(closed)
}

/// From a [`SocketOrigin`](mcs_proxy_ebpf::abi::SocketOrigin) as it lies in memory: VIP, backend, and the ports of both.
fn called(stored: &[u8]) -> Option<Target> {
    let word = |at: usize| Some(u64::from_ne_bytes(stored.get(at..at + 8)?.try_into().ok()?));
    let address = |at: usize| Some(Address::from_v6_raw([word(at)?, word(at + 8)?]));
    let port = |at: usize| Some(Port::from_raw(u16::from_ne_bytes(stored.get(at..at + 2)?.try_into().ok()?)));
    Some(Target([(address(0)?, port(32)?), (address(16)?, port(34)?)]))
}

/// What was called, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target([(Address, Port); 2]);

impl Target {
    fn new(vip: SocketAddr, backend: SocketAddr) -> Self {
        Self([vip, backend].map(|it| (Address::from(it.ip()), Port::new(it.port()))))
    }

    const fn of(tuple: &Tuple, flow: &Flow) -> Self {
        Self([(tuple.peer, tuple.peer_port), (flow.backend, flow.backend_port)])
    }
}

fn end(
    dir: &PinDir,
    name: MapName,
    replies: MapName,
    targets: &BTreeSet<Target>,
) -> Result<usize, EndedError> {
    let access = Access::ReadWrite;
    let scanned = dir.open(name, access)?;
    let mut flows: HashMap<MapData, Tuple, Flow> = dir.open_as(name, access)?;
    let mut replies_of: HashMap<MapData, Tuple, Reply> = dir.open_as(replies, access)?;
    let mut found = Vec::new();
    sys::for_each_batch(scanned.as_fd(), |tuples: &[Tuple], flows: &[Flow]| {
        let ours = tuples.iter().zip(flows).filter(|(tuple, flow)| {
            tuple.protocol == Protocol::Tcp.number()
                && !flow.state.is_closed()
                && !flow.state.is_cut()
                && targets.contains(&Target::of(tuple, flow))
        });
        found.extend(ours.map(|(tuple, flow)| (*tuple, *flow)));
    })
    .map_err(|source| EndedError::Scan { map: name, source })?;
    let mut ended = 0;
    for (tuple, seen) in found {
        let write = |source| EndedError::Write { map: name, source };
        // A packet may have changed it since, or another connection have taken its place.
        let flow = match flows.get(&tuple, 0) {
            Ok(flow)
                if (flow.isn, flow.backend, flow.interface) == (seen.isn, seen.backend, seen.interface) =>
            {
                flow
            }
            Ok(_) | Err(MapError::KeyNotFound) => continue,
            Err(failure) => return Err(write(failure)),
        };
        let done = if flow.state.has(FlowState::ANSWERED) {
            flows.insert(tuple, Flow { state: flow.state.with(FlowState::CUT), ..flow }, EXIST)
        } else {
            flows.remove(&tuple).and_then(|()| replies_of.remove(&reply_key(&tuple, &flow)))
        };
        match done {
            Ok(()) => ended += 1,
            Err(failure) if is_absent(&failure) => {}
            Err(failure) => return Err(write(failure)),
        }
    }
    Ok(ended)
}

/// It has ended by itself meanwhile.
fn is_absent(failure: &MapError) -> bool {
    matches!(failure, MapError::KeyNotFound)
        || matches!(failure, MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcs_proxy_ebpf::abi::SocketOrigin;
    use std::mem::offset_of;

    #[test]
    fn what_a_socket_called_is_read_where_the_programs_put_it() {
        assert_eq!(
            [
                offset_of!(SocketOrigin, vip),
                offset_of!(SocketOrigin, backend),
                offset_of!(SocketOrigin, vip_port),
                offset_of!(SocketOrigin, backend_port),
            ],
            [0, 16, 32, 34]
        );
        let target = Target::new("10.13.0.1:80".parse().unwrap(), "10.10.0.6:8080".parse().unwrap());
        let Target([(vip, vip_port), (backend, backend_port)]) = target;
        let words = [vip.words(), backend.words()].concat();
        let mut stored: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        stored.extend([vip_port.raw().to_ne_bytes(), backend_port.raw().to_ne_bytes()].concat());
        assert_eq!(called(&stored), Some(target));
        assert_eq!(called(&stored[..35]), None);
    }
}
