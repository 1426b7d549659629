//! Connected sockets of this thread's network namespace, by netlink (sock_diag(7)): listed, and closed.
//!
//! The messages are those of `include/uapi/linux/inet_diag.h`: a header in the machine's byte order, addresses and ports
//! in the network's. Another namespace's sockets are out of reach, as the kernel looks in that of the netlink socket.

use mcs_proxy_ebpf::abi::{Address, Port};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Linux 4.5, with `CONFIG_INET_DIAG_DESTROY`; for UDP 4.9.
const SOCK_DESTROY: u16 = 21;
/// UDP has two states: connected sockets are in this one.
const ESTABLISHED: u32 = 1 << 1;
/// Of TCP (`include/net/tcp_states.h`): established, SYN sent, the first FIN sent, the first FIN come. What is past those goes
/// by itself.
const OPEN: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 8;

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_sockid`, after the first four bytes of a socket's message.
const ID: usize = 48;
const FIRST: usize = 4;
/// `struct inet_diag_msg`, after which attributes follow.
const MESSAGE: usize = 72;

/// Of a request and of an answer: what BPF programs keep with the socket (`INET_DIAG_REQ_SK_BPF_STORAGES`, Linux 5.8), by
/// map.
const STORAGES_WANTED: u16 = 2;
const STORAGES: u16 = 20;
const MAP_FD: u16 = 1;
const STORAGE: u16 = 1;
const MAP_VALUE: u16 = 3;

#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    #[error("this kernel cannot {what} (it lacks {option})")]
    Unsupported { what: &'static str, option: &'static str },
    #[error("sock_diag: {what}: {source}")]
    Kernel { what: &'static str, source: io::Error },
    #[error("sock_diag: the kernel's answer cannot be read")]
    Malformed,
}

/// A connected socket, as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectedSocket {
    family: u8,
    protocol: u8,
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
    fn parse(message: &[u8], protocol: u8) -> Option<Self> {
        let id = message.get(FIRST..FIRST + ID)?;
        Some(Self { family: *message.first()?, protocol, id: bytes(id, 0) })
    }

    /// Of all sockets of a family.
    const fn any(family: i32, protocol: i32) -> Self {
        Self { family: family as u8, protocol: protocol as u8, id: [0; ID] }
    }

    const fn is_tcp(&self) -> bool {
        self.protocol == libc::IPPROTO_TCP as u8
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
            let wanted = ConnectedSocket::any(family, libc::IPPROTO_UDP);
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.ask(SOCK_DIAG_BY_FAMILY, flags, &wanted, &[], LISTING, |message| {
                found.extend(ConnectedSocket::parse(message, wanted.protocol));
            })?;
        }
        Ok(found)
    }

    /// All open TCP sockets of both families with which programs keep something in this map, and what.
    ///
    /// # Errors
    /// The kernel's: it is older than Linux 5.8, or we lack CAP_BPF.
    pub fn tcp_with(
        &self,
        storage: BorrowedFd<'_>,
    ) -> Result<Vec<(ConnectedSocket, Vec<u8>)>, SockDiagError> {
        let map = attribute(MAP_FD, &storage.as_raw_fd().to_ne_bytes());
        let wanted_storage = attribute(STORAGES_WANTED, &map);
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let wanted = ConnectedSocket::any(family, libc::IPPROTO_TCP);
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.ask(SOCK_DIAG_BY_FAMILY, flags, &wanted, &wanted_storage, LISTING_TCP, |message| {
                found.extend(ConnectedSocket::parse(message, wanted.protocol).zip(stored(message)));
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
        let what = if socket.is_tcp() { CLOSING_TCP } else { CLOSING };
        match self.ask(SOCK_DESTROY, flags, socket, &[], what, |_| {}) {
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
        self.close(&ConnectedSocket::any(libc::AF_INET, libc::IPPROTO_UDP)).map(drop)
    }

    /// Sends a request about `socket`, with attributes, and reads answers up to the last one.
    fn ask(
        &self,
        kind: u16,
        flags: i32,
        socket: &ConnectedSocket,
        attributes: &[u8],
        what: &'static str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), SockDiagError> {
        let error = |source| SockDiagError::Kernel { what, source };
        self.0.send(&request(kind, flags, socket, attributes), 0).map_err(error)?;
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
const LISTING_TCP: &str = "list TCP sockets with what programs keep with them";
const CLOSING_TCP: &str = "close TCP sockets";

/// A `struct nlmsghdr` and a `struct inet_diag_req_v2`, and attributes.
fn request(kind: u16, flags: i32, socket: &ConnectedSocket, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + 8 + ID + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    // Sequence number and port id: there is one request at a time.
    message.extend([0; 8]);
    message.extend([socket.family, socket.protocol, 0, 0]);
    message.extend(if socket.is_tcp() { OPEN } else { ESTABLISHED }.to_ne_bytes());
    message.extend(socket.id);
    message.extend(attributes);
    message
}

/// A `struct nlattr` and what it holds, padded to four bytes.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(4 + content.len());
    attribute.extend(((4 + content.len()) as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(content);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// What an attribute of this kind holds; `None` if it is not there, or what is there makes no sense.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(bytes(rest, 0)));
        let content = rest.get(4..length)?;
        // The two upper bits say how the content is made.
        if u16::from_ne_bytes(bytes(rest, 2)) & 0x3fff == kind {
            return Some(content);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// What programs keep with the socket in the map that was asked about.
fn stored(message: &[u8]) -> Option<Vec<u8>> {
    let storage = find(find(message.get(MESSAGE..)?, STORAGES)?, STORAGE)?;
    find(storage, MAP_VALUE).map(<[u8]>::to_vec)
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
        libc::EOPNOTSUPP if what == CLOSING || what == CLOSING_TCP => {
            Err(SockDiagError::Unsupported { what, option: "CONFIG_INET_DIAG_DESTROY" })
        }
        libc::ENOENT if what == LISTING_TCP => {
            Err(SockDiagError::Unsupported { what, option: "CONFIG_INET_TCP_DIAG" })
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
