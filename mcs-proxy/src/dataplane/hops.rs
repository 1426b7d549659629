//! What the programs remember of where the host forwards packets to: forgotten as soon as the host may say otherwise.
//!
//! The programs hold an answer of the host's for a second, and open flows follow it. When a route, a neighbour's MAC address or an
//! interface changes, the kernel tells so by rtnetlink, and everything held is forgotten: the next packet asks anew. A program
//! that was asking at that moment may note the old answer after that; it then holds for the second, as without a daemon.

use super::sys::{Entries, SysError};
use futures::{FutureExt as _, StreamExt as _};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    },
};
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};
use tokio::{task, time};

/// The map's name in the object. It belongs to the programs, and is no part of the contract: nobody pins it.
pub(super) const MAP: &str = "hops";

/// A connection of its own: what comes here in floods holds up nobody who waits for a pod's interface.
const GROUPS: [MulticastGroup; 4] =
    [MulticastGroup::Link, MulticastGroup::Neigh, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];

/// Between two times: routes may come by the thousand.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum HopsError {
    #[error("rtnetlink: {0}")]
    Socket(#[from] io::Error),
    #[error("rtnetlink: the connection ended")]
    Ended,
    #[error("map `{MAP}`: {0}")]
    Map(#[from] SysError),
}

/// The map of loaded programs.
#[derive(Debug)]
pub struct Hops(OwnedFd);

impl Hops {
    pub(super) const fn new(map: OwnedFd) -> Self {
        Self(map)
    }

    /// Forgets everything, and returns how much that was.
    pub fn forget(&self) -> Result<usize, SysError> {
        // It is no per-CPU map.
        let entries = Entries::of(self.0.as_fd(), 1)?;
        let keys = entries.keys()?;
        keys.iter().try_for_each(|key| entries.remove(key).map(drop))?;
        Ok(keys.len())
    }

    /// Follows the kernel in the network namespace of the calling thread, and never returns but with an error, after which it
    /// can be called again.
    pub async fn follow(&self) -> Result<(), HopsError> {
        let (connection, _handle, mut messages) = new_multicast_connection(&GROUPS)?;
        let connection = task::spawn(connection);
        let _ends_with_us = AbortOnDrop(connection.abort_handle());
        let mut neighbours = Neighbours::default();
        // What changed before we listened.
        self.forget()?;
        loop {
            let (message, _) = messages.next().await.ok_or(HopsError::Ended)?;
            let mut moved = neighbours.follow(&message);
            while let Some(next) = messages.next().now_or_never() {
                let (message, _) = next.ok_or(HopsError::Ended)?;
                moved |= neighbours.follow(&message);
            }
            if moved {
                self.forget()?;
                time::sleep(PAUSE).await;
            }
        }
    }
}

struct AbortOnDrop(task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// MAC addresses as they were told last: most messages tell that one was confirmed, and nothing else.
#[derive(Debug, Default)]
struct Neighbours(BTreeMap<(u32, IpAddr), Vec<u8>>);

impl Neighbours {
    /// Whether the host may answer otherwise than before this message.
    fn follow(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        if let NetlinkPayload::InnerMessage(message) = &message.payload {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = message {
                return self.enter(neighbour);
            }
            if let RouteNetlinkMessage::DelNeighbour(neighbour) = message {
                return key(neighbour).is_some_and(|key| self.0.remove(&key).is_some());
            }
            // Routes and links.
            return true;
        }
        if let NetlinkPayload::Overrun(_) = message.payload {
            self.0.clear();
            return true;
        }
        false
    }

    fn enter(&mut self, neighbour: &NeighbourMessage) -> bool {
        // Bridges tell of their ports' MAC addresses in the same words.
        let Some(key) = key(neighbour) else { return false };
        let mac = neighbour.attributes.iter().find_map(|attribute| {
            if let NeighbourAttribute::LinkLayerAddress(mac) = attribute { Some(mac) } else { None }
        });
        match mac {
            Some(mac) => self.0.insert(key, mac.clone()).as_ref() != Some(mac),
            None => self.0.remove(&key).is_some(),
        }
    }
}

fn key(neighbour: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    neighbour.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) = attribute {
            return Some((neighbour.header.ifindex, IpAddr::V4(*v4)));
        }
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) = attribute {
            return Some((neighbour.header.ifindex, IpAddr::V6(*v6)));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::{link::LinkMessage, route::RouteMessage};

    fn neighbour(index: u32, ip: &str, mac: Option<[u8; 6]>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        let address = match ip.parse().unwrap() {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message.attributes.push(NeighbourAttribute::Destination(address));
        message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec())));
        message
    }

    fn told(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::from(message)
    }

    #[test]
    fn a_neighbour_that_was_confirmed_is_no_news_and_one_that_moved_is() {
        let mut neighbours = Neighbours::default();
        let (old, new) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let came = |index, ip, mac| told(RouteNetlinkMessage::NewNeighbour(neighbour(index, ip, mac)));
        let went = |index, ip| told(RouteNetlinkMessage::DelNeighbour(neighbour(index, ip, None)));
        for (message, is_news) in [
            (came(7, "10.12.0.6", None), false),
            (came(7, "10.12.0.6", Some(old)), true),
            (came(7, "10.12.0.6", Some(old)), false),
            (came(8, "10.12.0.6", Some(old)), true),
            (came(7, "fd10:12::6", Some(old)), true),
            (came(7, "10.12.0.6", Some(new)), true),
            (came(7, "10.12.0.6", None), true),
            (went(7, "10.12.0.6"), false),
            (went(8, "10.12.0.6"), true),
            (told(RouteNetlinkMessage::NewRoute(RouteMessage::default())), true),
            (told(RouteNetlinkMessage::DelLink(LinkMessage::default())), true),
            (told(RouteNetlinkMessage::NewNeighbour(NeighbourMessage::default())), false),
        ] {
            assert_eq!(neighbours.follow(&message), is_news, "{message:?}");
        }
        assert_eq!(neighbours.0.len(), 1);
    }
}
