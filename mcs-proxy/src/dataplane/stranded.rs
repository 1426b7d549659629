//! Connected UDP sockets whose backend is gone.
//!
//! No hook sees the datagrams of a connected socket, so it can't select anew, as others do with their next datagram. It is
//! closed in place of that: its program gets ECONNABORTED, and connects again. Only sockets that the socket path itself
//! connected are, which `socket_origins` tells by their numbers.

use super::{
    pins::{PinDir, PinsError},
    sock_diag::{ConnectedSocket, SockDiag, SockDiagError},
    sys::{Access, MappedWords},
};
use aya::maps::{HashMap, MapData, MapError};
use mcs_proxy_ebpf::abi::{BackendState, MapName, SocketKey, SocketOrigin};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum StrandedError {
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error("map `{map}`: {source}", map = MapName::SocketOrigins.as_str())]
    Map { source: io::Error },
    #[error(transparent)]
    Sockets(#[from] SockDiagError),
}

/// Closes those of this thread's network namespace, and returns how many there were.
///
/// Lists every connected UDP socket, so not for the task that writes the maps.
///
/// # Errors
/// The maps are gone, or the kernel can't.
pub fn close_stranded(dir: &PinDir) -> Result<usize, StrandedError> {
    let access = Access::ReadWrite;
    let origins: HashMap<MapData, SocketKey, SocketOrigin> = dir.open_as(MapName::SocketOrigins, access)?;
    let states = dir.map_words(MapName::BackendState, access)?;
    let diag = SockDiag::open()?;
    let mut closed = 0;
    for socket in diag.connected_udp()? {
        if is_stranded(&socket, &origins, &states)? && diag.close(&socket)? {
            closed += 1;
        }
    }
    Ok(closed)
}

fn is_stranded(
    socket: &ConnectedSocket,
    origins: &HashMap<MapData, SocketKey, SocketOrigin>,
    states: &MappedWords,
) -> Result<bool, StrandedError> {
    let (peer, port) = socket.peer();
    let origin = match origins.get(&SocketKey::new(socket.cookie(), peer, port), 0) {
        Ok(origin) => origin,
        Err(MapError::KeyNotFound) => return Ok(false),
        Err(failure) => return Err(StrandedError::Map { source: io::Error::other(failure) }),
    };
    let state = states.read(origin.backend_id as usize).map(BackendState::from_word).unwrap_or_default();
    Ok(!state.keeps(origin.generation))
}
