//! What the socket path remembers: sockets speak to backends, and their programs are to see VIPs.

use super::{Address, Port};

/// Key of `socket_backends` (what an unconnected socket called) and of `socket_origins` (who answers it, or a connected
/// UDP socket).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey {
    /// The kernel's number of the socket, which it never gives to another (`SO_COOKIE`).
    pub cookie: u64,
    pub peer: Address,
    pub port: Port,
    pad: [u16; 3],
}

impl SocketKey {
    #[inline(always)]
    pub const fn new(cookie: u64, peer: Address, port: Port) -> Self {
        Self { cookie, peer, port, pad: [0; 3] }
    }
}

/// Value of `socket_backends`, by socket and VIP: where its datagrams go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBackend {
    pub backend: Address,
    pub backend_id: u32,
    /// Of `backend_state`: with another one, the next datagram selects anew.
    pub generation: u32,
    pub port: Port,
    pub pad: [u16; 3],
}

/// Value of `socket_origins`, by socket and backend, and of `socket_peers`, by socket alone: what the program called.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOrigin {
    pub vip: Address,
    /// What it stands for. An origin that names another peer than the socket has is an old one.
    pub backend: Address,
    pub vip_port: Port,
    pub backend_port: Port,
    pub backend_id: u32,
    pub generation: u32,
    pub pad: u32,
}

const _: () = assert!(size_of::<SocketKey>() == 32);
const _: () = assert!(size_of::<SocketBackend>() == 32);
const _: () = assert!(size_of::<SocketOrigin>() == 48);

/// Which sockets the socket path serves: `--socket-path`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketScope {
    /// Those in the node's own network namespace.
    Host = 1,
    /// Those of every process in the cgroup.
    All = 2,
}
