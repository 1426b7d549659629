//! A client whose ports are always the same, so that whatever was remembered of them is met again.

use crate::{stage::vips, witness::Passed};
use anyhow::{Context, Result};
use mcs_proxy_tests::{Namespace, client};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Above those that Linux gives out by itself.
const FIRST_PORT: u16 = 60_900;
/// The second is more than a link carries at once.
pub(crate) const LENGTHS: [usize; 2] = [7, 4_000];

pub(crate) struct Caller {
    namespace: Namespace,
    lengths: Vec<usize>,
    /// Of each family: the client's address, the Service, and sockets that live as long as this.
    families: Vec<Family>,
}

struct Family {
    client: IpAddr,
    vip: SocketAddr,
    connected: UdpSocket,
    unconnected: UdpSocket,
}

impl Caller {
    /// Calls from these addresses, one of each family, with datagrams of these lengths.
    pub(crate) fn new(namespace: &Namespace, addresses: &[IpAddr], lengths: &[usize]) -> Result<Self> {
        let family = |(vip, &client): (SocketAddr, &IpAddr)| -> Result<Family> {
            let at = |number| SocketAddr::new(client, FIRST_PORT + number);
            let connected = client::udp_socket_from(namespace, at(0), vip)?;
            Ok(Family { client, vip, connected, unconnected: client::udp_socket_at(namespace, at(1))? })
        };
        let families = vips().into_iter().zip(addresses).map(family).collect::<Result<_>>()?;
        Ok(Self { namespace: namespace.clone(), lengths: lengths.to_vec(), families })
    }

    /// In every way. All are answered, by the Service's address; returns how many calls there were.
    pub(crate) fn call(&self) -> Result<Passed> {
        Ok(self.by_connected()?.and(self.by_unconnected()?).and(self.by_new_sockets()?))
    }

    /// Over the sockets that were connected in the beginning.
    pub(crate) fn by_connected(&self) -> Result<Passed> {
        self.ask("a connected socket", |family, datagram| {
            client::udp_ask(&family.connected, family.vip, datagram)
        })
    }

    /// Over sockets that are not connected.
    pub(crate) fn by_unconnected(&self) -> Result<Passed> {
        self.ask("an unconnected socket", |family, datagram| {
            client::udp_ask_at(&family.unconnected, family.vip, datagram)
        })
    }

    /// Over sockets of their own, the ports of which were in use before: UDP and TCP.
    pub(crate) fn by_new_sockets(&self) -> Result<Passed> {
        let asked = self.ask("a new socket", |family, datagram| {
            let from = SocketAddr::new(family.client, FIRST_PORT + 2);
            client::udp_ask(
                &client::udp_socket_from(&self.namespace, from, family.vip)?,
                family.vip,
                datagram,
            )
        })?;
        let mut syns = 0;
        for Family { client, vip, .. } in &self.families {
            // The pod closes first: its end waits.
            client::http_from(&self.namespace, SocketAddr::new(*client, FIRST_PORT + 3), *vip)?;
            syns += 1;
        }
        Ok(asked.and(Passed { syns, datagrams: 0 }))
    }

    fn ask(&self, by: &str, ask: impl Fn(&Family, &str) -> Result<IpAddr>) -> Result<Passed> {
        let mut datagrams = 0;
        for family in &self.families {
            for &length in &self.lengths {
                ask(family, &"x".repeat(length)).with_context(|| format!("{length} bytes by {by}"))?;
                datagrams += 1;
            }
        }
        Ok(Passed { syns: 0, datagrams })
    }
}
