//! What daemons of other layouts have pinned beside ours.
//!
//! When a daemon of another layout takes over, its programs are first in the chain, and those of the old layout stay behind
//! them: a connection that they opened is unknown to ours, passes, and is theirs. Once our maps hold everything, theirs
//! are emptied of Services, so that they open nothing any more; when their last flow is gone, they go. Nothing of their maps is
//! known but what has not changed since the first layout: which of them are hashes of VIPs, Services and flows.

use super::{
    flows::OpenFlow,
    leftovers::{self, LeftoverError},
    links::{LinkError, unpin},
    pins::PinDir,
    sys::{self, Access, Entries, SysError},
};
use mcs_proxy_ebpf::abi::{ABI_VERSION, MapName, Protocol, Tuple};
use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    mem::offset_of,
    net::{Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("{path}: {source}")]
    Path { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Map { path: PathBuf, source: SysError },
    #[error(transparent)]
    Links(#[from] LeftoverError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A layout that is not ours and has something pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub version: u32,
    dir: PathBuf,
}

/// A layout whose flows come to their end.
#[derive(Debug)]
pub struct Draining {
    layout: Layout,
    /// When each flow was first seen as it is, by a hash of it: one that is used changes about once a second.
    seen: HashMap<Vec<u8>, (u64, Instant)>,
    closed: bool,
}

/// All but ours, the oldest first.
pub fn others(pins: &PinDir) -> Result<Vec<Layout>, LayoutError> {
    let root = pins.root();
    let failed = |source| LayoutError::Path { path: root.to_owned(), source };
    let mut found = Vec::new();
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let dir = entry.map_err(failed)?.path();
        let version = leftovers::layout(&dir).filter(|&version| version != ABI_VERSION);
        found.extend(version.filter(|_| has_pins(&dir)).map(|version| Layout { version, dir }));
    }
    found.sort_by_key(|layout| layout.version);
    Ok(found)
}

/// Empty directories are nobody's state.
fn has_pins(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let path = entry.path();
            if path.is_dir() { has_pins(&path) } else { true }
        })
    })
}

/// Takes the programs off that are pinned beneath a directory.
pub fn detach(dir: &Path) -> Result<(), LayoutError> {
    Ok(leftovers::links_in(dir)?.iter().try_for_each(|path| unpin(path))?)
}

/// Takes the programs off that are pinned beneath a directory, and everything of it away.
pub fn remove(dir: &Path) -> Result<(), LayoutError> {
    detach(dir)?;
    fs::remove_dir_all(dir).map_err(|source| LayoutError::Path { path: dir.to_owned(), source })
}

impl Layout {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Its established connections, as their keys name them: closed ones are elsewhere, and of datagrams nothing is known but
    /// that there were some once.
    pub fn open_flows(&self) -> Result<Vec<OpenFlow>, LayoutError> {
        let keys = self.with(MapName::Flows, |entries| entries.keys())?;
        Ok(keys.unwrap_or_default().iter().filter_map(|key| named(key)).collect())
    }

    /// Takes its programs off; its maps stay.
    pub fn detach(&self) -> Result<(), LayoutError> {
        detach(&self.dir)
    }

    fn with<T>(
        &self,
        map: MapName,
        act: impl FnOnce(&Entries<'_>) -> Result<T, SysError>,
    ) -> Result<Option<T>, LayoutError> {
        let path = self.dir.join(map.as_str());
        let failed = |source| LayoutError::Map { path: path.clone(), source };
        let fd = match sys::object_get(&path, Access::ReadWrite) {
            Ok(fd) => fd,
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // None of these is a per-CPU map.
        Entries::of(fd.as_fd(), 1).and_then(|entries| act(&entries)).map(Some).map_err(failed)
    }
}

/// The flow of a key. In every layout that there was, a key of `flows` is a [`Tuple`](mcs_proxy_ebpf::abi::Tuple).
fn named(key: &[u8]) -> Option<OpenFlow> {
    let address = |at: usize| {
        let bytes: [u8; 16] = key.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).to_canonical())
    };
    let port = |at: usize| Some(u16::from_be_bytes(key.get(at..at + 2)?.try_into().ok()?));
    let protocol = Protocol::from_number(*key.get(offset_of!(Tuple, protocol))?)?;
    match protocol {
        Protocol::Tcp | Protocol::Sctp => {}
        Protocol::Udp => return None,
    }
    let client = SocketAddr::new(address(offset_of!(Tuple, client))?, port(offset_of!(Tuple, client_port))?);
    let vip = SocketAddr::new(address(offset_of!(Tuple, peer))?, port(offset_of!(Tuple, peer_port))?);
    Some(OpenFlow { protocol, client, vip })
}

impl Draining {
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, seen: HashMap::new(), closed: false }
    }

    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// From here on it opens no flow, and refuses none: VIPs first, so that none is refused for want of a Service.
    pub fn close(&mut self) -> Result<(), LayoutError> {
        for map in [MapName::Vips, MapName::Services] {
            self.layout.with(map, |entries| {
                entries.keys()?.iter().try_for_each(|key| entries.remove(key).map(drop))
            })?;
        }
        self.closed = true;
        Ok(())
    }

    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many flows it has left. Those that nothing has changed for `silence` are forgotten: no collector of theirs runs.
    pub fn flows(&mut self, silence: Duration) -> Result<usize, LayoutError> {
        let now = Instant::now();
        let mut seen = std::mem::take(&mut self.seen);
        let mut left = HashMap::new();
        self.layout.with(MapName::Flows, |entries| {
            for key in entries.keys()? {
                let Some(value) = entries.get(&key)? else { continue };
                let mut hasher = DefaultHasher::new();
                value.hash(&mut hasher);
                let hash = hasher.finish();
                let since =
                    seen.remove(&key).filter(|(before, _)| *before == hash).map_or(now, |(_, since)| since);
                if now.duration_since(since) > silence {
                    entries.remove(&key)?;
                } else {
                    left.insert(key, (hash, since));
                }
            }
            Ok(())
        })?;
        self.seen = left;
        Ok(self.seen.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcs_proxy_ebpf::abi::{Address, Port};
    use std::net::IpAddr;

    #[test]
    fn a_key_names_its_connection() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        for (client, vip) in [("10.12.0.9", "10.13.0.80"), ("fd10:12::9", "fd10:13::80")] {
            for protocol in [Protocol::Tcp, Protocol::Sctp, Protocol::Udp] {
                let tuple = Tuple::new(
                    address(client),
                    Port::new(40_000),
                    address(vip),
                    Port::new(80),
                    protocol.number(),
                );
                let flow = OpenFlow {
                    protocol,
                    client: SocketAddr::new(client.parse().unwrap(), 40_000),
                    vip: SocketAddr::new(vip.parse().unwrap(), 80),
                };
                let found = named(&bytes_of(&tuple));
                assert_eq!(found, (protocol != Protocol::Udp).then_some(flow));
            }
        }
        assert_eq!(named(&[6; 8]), None);
        assert_eq!(named(&[0; 40]), None);
    }

    /// As the kernel has it.
    fn bytes_of(tuple: &Tuple) -> Vec<u8> {
        let Tuple { client, peer, client_port, peer_port, protocol, .. } = *tuple;
        let ports = [client_port, peer_port].map(|port| port.get().to_be_bytes());
        let mut bytes = Vec::new();
        for address in [client, peer] {
            let ip = match address.to_ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            bytes.extend(ip.octets());
        }
        bytes.extend(ports.concat());
        bytes.extend([protocol, 0, 0, 0]);
        bytes
    }
}
