//! Which interfaces lead to pods.
//!
//! [`watch`] follows the kernel's links, addresses and routes; [`is_pod_interface`] judges, and does no I/O.

mod pattern;
mod place_map;
mod state;
mod watch;

pub use pattern::Pattern;
pub use place_map::PlaceMap;
pub use watch::{InterfaceEvent, InterfacesError, watch};

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// What there is to know of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkView {
    pub name: String,
    pub is_veth: bool,
    /// The other end is in another network namespace (`IFLA_LINK_NETNSID` is there).
    pub peer_is_elsewhere: bool,
    /// With prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// A default route, in whatever table, leaves by it.
    pub has_default_route: bool,
}

/// Why an interface is not taken for a pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAPod {
    /// The operator said so.
    Excluded,
    NotVeth,
    /// Both ends are in this network namespace.
    PeerIsHere,
    /// A node that is itself in a network namespace reaches the world by it.
    DefaultRoute,
    /// The node has an address in a network that is behind the interface.
    NodeAddress(IpAddr),
}

/// Whether packets on this interface are a pod's.
#[must_use]
pub fn is_pod_interface(link: &LinkView, exclude: &[Pattern]) -> bool {
    why_not(link, exclude).is_none()
}

/// `None`: it is a pod's interface.
#[must_use]
pub fn why_not(link: &LinkView, exclude: &[Pattern]) -> Option<NotAPod> {
    let LinkView { name, is_veth, peer_is_elsewhere, addresses, has_default_route } = link;
    if !is_veth {
        return Some(NotAPod::NotVeth);
    }
    if exclude.iter().any(|pattern| pattern.matches(name)) {
        return Some(NotAPod::Excluded);
    }
    if !peer_is_elsewhere {
        return Some(NotAPod::PeerIsHere);
    }
    if *has_default_route {
        return Some(NotAPod::DefaultRoute);
    }
    let of_the_node = addresses.iter().find(|&&(address, prefix)| is_of_the_node(address, prefix));
    of_the_node.map(|&(address, _)| NotAPod::NodeAddress(address))
}

/// Point-to-point CNIs (ptp, Calico, GKE) put the pods' gateway address, the same on every interface, there with
/// full prefix length; and every interface that is up has a link-local address. Neither makes it the node's.
fn is_of_the_node(address: IpAddr, prefix: u8) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let full = if address.is_ipv4() { u32::BITS } else { Ipv6Addr::BITS };
    !is_link_local && u32::from(prefix) < full
}

impl fmt::Display for NotAPod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => formatter.write_str("excluded by --exclude-interface"),
            Self::NotVeth => formatter.write_str("not a veth"),
            Self::PeerIsHere => formatter.write_str("its peer is in the node's own network namespace"),
            Self::DefaultRoute => formatter.write_str("a default route leaves by it"),
            Self::NodeAddress(address) => write!(formatter, "the node's address {address} is on it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> LinkView {
        LinkView {
            name: "veth1a2b".to_owned(),
            is_veth: true,
            peer_is_elsewhere: true,
            ..LinkView::default()
        }
    }

    fn with(addresses: &[(&str, u8)]) -> LinkView {
        let addresses =
            addresses.iter().map(|(address, prefix)| (address.parse().unwrap(), *prefix)).collect();
        LinkView { addresses, ..pod() }
    }

    #[test]
    fn pods_are_told_from_the_rest() {
        let node = |address: &str| Some(NotAPod::NodeAddress(address.parse().unwrap()));
        for (link, expected, why) in [
            (pod(), None, "a plain pod's"),
            (with(&[("10.10.0.1", 32)]), None, "ptp's gateway address"),
            (with(&[("fd00:10:10::1", 128)]), None, "ptp's gateway address"),
            (with(&[("fe80::1", 64), ("169.254.1.1", 16)]), None, "link-local addresses"),
            (with(&[("169.254.1.1", 32)]), None, "Calico's gateway address"),
            (with(&[("192.168.1.10", 24)]), node("192.168.1.10"), "a nested node's uplink"),
            (with(&[("fd00:1::10", 64)]), node("fd00:1::10"), "a nested node's uplink"),
            (with(&[("10.10.0.1", 31)]), node("10.10.0.1"), "a point-to-point uplink"),
            (with(&[("10.10.0.1", 32), ("192.168.1.10", 24)]), node("192.168.1.10"), "both"),
            (LinkView { has_default_route: true, ..pod() }, Some(NotAPod::DefaultRoute), "an uplink"),
            (
                LinkView { peer_is_elsewhere: false, ..pod() },
                Some(NotAPod::PeerIsHere),
                "a pair of the node's",
            ),
            (LinkView { is_veth: false, ..pod() }, Some(NotAPod::NotVeth), "a bridge, a NIC"),
            (LinkView { name: "lan0".to_owned(), ..pod() }, Some(NotAPod::Excluded), "a pattern"),
            (LinkView { name: "uplink".to_owned(), ..pod() }, Some(NotAPod::Excluded), "a name"),
        ] {
            let exclude = ["lan*".parse().unwrap(), "uplink".parse().unwrap()];
            assert_eq!(why_not(&link, &exclude), expected, "{why}");
            assert_eq!(is_pod_interface(&link, &exclude), expected.is_none(), "{why}");
        }
    }
}
