//! Connected UDP sockets of this thread's network namespace, by netlink (sock_diag(7)): listed, and closed.
//!
//! The messages are those of `include/uapi/linux/inet_diag.h`: a header in the machine's byte order, addresses and ports
//! in the network's. Another namespace's sockets are out of reach, as the kernel looks in that of the netlink socket.

use mcs_proxy_ebpf::abi::{Address, Port};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Linux 4.5, with `CONFIG_INET_DIAG_DESTROY`; for UDP 4.9.
const SOCK_DESTROY: u16 = 21;
/// UDP has two states: connected sockets are in this one.
const ESTABLISHED: u32 = 1 << 1;

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_sockid`, after the first four bytes of a socket's message.
const ID: usize = 48;
const FIRST: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    #[error("this kernel cannot {what} (it lacks {option})")]
    Unsupported { what: &'static str, option: &'static str },
    #[error("sock_diag: {what}: {source}")]
    Kernel { what: &'static str, source: io::Error },
    #[error("sock_diag: the kernel's answer cannot be read")]
    Malformed,
}

/// A connected UDP socket, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectedSocket {
    family: u8,
    id: [u8; ID],
}

impl ConnectedSocket {
    /// The kernel's number of the socket, as `bpf_get_socket_cookie` returns it.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        let word = |at: usize| u64::from(u32::from_ne_bytes(bytes(&self.id, at)));
        word(40) | word(44) << 32
    }

    /// Who it is connected to. An IPv6 socket's IPv4 peer is that IPv4 address.
    #[must_use]
    pub fn peer(&self) -> (Address, Port) {
        let ip = if i32::from(self.family) == libc::AF_INET {
            IpAddr::from(Ipv4Addr::from(bytes::<4>(&self.id, 20)))
        } else {
            IpAddr::from(Ipv6Addr::from(bytes::<16>(&self.id, 20))).to_canonical()
        };
        (Address::from(ip), Port::new(u16::from_be_bytes(bytes(&self.id, 2))))
    }

    /// `message`: a `struct inet_diag_msg`.
    fn parse(message: &[u8]) -> Option<Self> {
        let id = message.get(FIRST..FIRST + ID)?;
        Some(Self { family: *message.first()?, id: bytes(id, 0) })
    }
}

/// A netlink socket.
#[derive(Debug)]
pub struct SockDiag(Socket);

impl SockDiag {
    /// # Errors
    /// The kernel's.
    pub fn open() -> Result<Self, SockDiagError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
            Ok(Self(socket))
        };
        open().map_err(|source| SockDiagError::Kernel { what: "opening", source })
    }

    /// All connected UDP sockets of both families.
    ///
    /// # Errors
    /// The kernel has no sock_diag for UDP; or its own.
    pub fn connected_udp(&self) -> Result<Vec<ConnectedSocket>, SockDiagError> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let wanted = ConnectedSocket { family: family as u8, id: [0; ID] };
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.ask(SOCK_DIAG_BY_FAMILY, flags, &wanted, LISTING, |message| {
                found.extend(ConnectedSocket::parse(message));
            })?;
        }
        Ok(found)
    }

    /// Closes a socket: whoever waits on it, or next uses it, gets ECONNABORTED, and it is no longer connected.
    ///
    /// Returns whether it was there: it may be gone by now, and another have its addresses, which the kernel tells by
    /// the number.
    ///
    /// # Errors
    /// The kernel can't, or we lack CAP_NET_ADMIN.
    pub fn close(&self, socket: &ConnectedSocket) -> Result<bool, SockDiagError> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        match self.ask(SOCK_DESTROY, flags, socket, CLOSING, |_| {}) {
            Ok(()) => Ok(true),
            Err(SockDiagError::Kernel { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) =>
            {
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Says whether [`close`](Self::close) is possible, by closing a socket that there is not.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn can_close(&self) -> Result<(), SockDiagError> {
        self.close(&ConnectedSocket { family: libc::AF_INET as u8, id: [0; ID] }).map(drop)
    }

    /// Sends a request about `socket`, and reads answers up to the last one.
    fn ask(
        &self,
        kind: u16,
        flags: i32,
        socket: &ConnectedSocket,
        what: &'static str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), SockDiagError> {
        let error = |source| SockDiagError::Kernel { what, source };
        self.0.send(&request(kind, flags, socket), 0).map_err(error)?;
        loop {
            let (datagram, _) = self.0.recv_from_full().map_err(error)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let Some((kind, message, next)) = split(rest) else { return Err(SockDiagError::Malformed) };
                rest = next;
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return verdict(message, what),
                    _ => take(message),
                }
            }
        }
    }
}

const LISTING: &str = "list connected UDP sockets";
const CLOSING: &str = "close UDP sockets";

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`.
fn request(kind: u16, flags: i32, socket: &ConnectedSocket) -> Vec<u8> {
    const LENGTH: usize = HEADER + 8 + ID;
    let mut message = Vec::with_capacity(LENGTH);
    message.extend((LENGTH as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    // Sequence number and port id: there is one request at a time.
    message.extend([0; 8]);
    message.extend([socket.family, libc::IPPROTO_UDP as u8, 0, 0]);
    message.extend(ESTABLISHED.to_ne_bytes());
    message.extend(socket.id);
    message
}

/// The first message's type and contents, and what follows it.
fn split(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes(datagram.get(..HEADER)?, 0)) as usize;
    let kind = u16::from_ne_bytes(bytes(datagram, 4));
    let message = datagram.get(HEADER..length)?;
    let next = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, message, next))
}

/// Of a `struct nlmsgerr`, which also is the acknowledgement.
fn verdict(message: &[u8], what: &'static str) -> Result<(), SockDiagError> {
    let errno = message.get(..4).ok_or(SockDiagError::Malformed)?;
    match -i32::from_ne_bytes(bytes(errno, 0)) {
        0 => Ok(()),
        libc::EOPNOTSUPP if what == CLOSING => {
            Err(SockDiagError::Unsupported { what, option: "CONFIG_INET_DIAG_DESTROY" })
        }
        libc::ENOENT if what == LISTING => {
            Err(SockDiagError::Unsupported { what, option: "CONFIG_INET_UDP_DIAG" })
        }
        errno => Err(SockDiagError::Kernel { what, source: io::Error::from_raw_os_error(errno) }),
    }
}

/// `N` bytes from `at` on; the callers have seen that they are there.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| from.get(at + i).copied().unwrap_or_default())
}

#[cfg(test)]
#[path = "sock_diag_tests.rs"]
mod tests;
