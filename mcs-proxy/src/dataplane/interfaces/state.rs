//! The kernel's links, addresses and default routes, as its messages tell them.

use super::{LinkView, Pattern, is_pod_interface};
use mcs_proxy_ebpf::abi::Place;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteType},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, BTreeSet<(IpAddr, u8)>>,
    default_routes: BTreeSet<u32>,
}

#[derive(Clone, Debug)]
struct Link {
    name: String,
    is_veth: bool,
    peer_is_elsewhere: bool,
    /// The namespace of the other end, by its id.
    netns: i32,
    is_bridge: bool,
    /// What it is a port or a slave of.
    master: Option<u32>,
    /// The other end's index, in whichever namespace that is.
    peer: Option<u32>,
}

/// What a message leaves open, and has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// All routes: which default route a message means can't be told from it alone.
    Routes,
    Link(u32),
}

impl State {
    pub(super) fn apply(&mut self, message: &RouteNetlinkMessage) -> Option<Question> {
        if let RouteNetlinkMessage::NewLink(link) = message {
            return self.enter_link(link);
        }
        if let RouteNetlinkMessage::DelLink(link) = message {
            return self.remove_link(link);
        }
        if let RouteNetlinkMessage::NewAddress(address) = message {
            self.enter_address(address);
        }
        if let RouteNetlinkMessage::DelAddress(address) = message {
            self.remove_address(address);
        }
        if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) = message {
            return is_default(route).then_some(Question::Routes);
        }
        None
    }

    pub(super) fn set_routes<'a>(&mut self, routes: impl IntoIterator<Item = &'a RouteMessage>) {
        self.default_routes =
            routes.into_iter().filter(|route| is_default(route)).flat_map(outputs).collect();
    }

    /// Names by index.
    pub(super) fn pods(&self, exclude: &[Pattern]) -> BTreeMap<u32, String> {
        let pods =
            self.links.iter().filter(|(index, link)| is_pod_interface(&self.view(**index, link), exclude));
        pods.map(|(index, link)| (*index, link.name.clone())).collect()
    }

    /// What the programs need to know of these interfaces.
    pub(super) fn places(&self, pods: &BTreeMap<u32, String>) -> BTreeMap<u32, Place> {
        let place = |link: &Link| {
            let bridge = link.master.filter(|master| self.links.get(master).is_some_and(|it| it.is_bridge));
            Place { netns: link.netns, bridge: bridge.unwrap_or(Place::UNKNOWN.bridge) }
        };
        let known = |index: &u32| Some((*index, place(self.links.get(index)?)));
        pods.keys().filter_map(known).collect()
    }

    fn view(&self, index: u32, link: &Link) -> LinkView {
        LinkView {
            name: link.name.clone(),
            is_veth: link.is_veth,
            peer_is_elsewhere: link.peer_is_elsewhere,
            addresses: self.addresses.get(&index).into_iter().flatten().copied().collect(),
            has_default_route: self.default_routes.contains(&index),
        }
    }

    pub(super) fn enter_link(&mut self, message: &LinkMessage) -> Option<Question> {
        if !is_about_the_link(message) {
            return None;
        }
        let mut link = Link {
            name: String::new(),
            is_veth: false,
            peer_is_elsewhere: false,
            netns: Place::UNKNOWN.netns,
            is_bridge: false,
            master: None,
            peer: None,
        };
        for attribute in &message.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                link.name.clone_from(name);
            }
            if let LinkAttribute::Link(peer) = attribute {
                link.peer = Some(*peer);
            }
            if let LinkAttribute::Controller(master) = attribute {
                link.master = Some(*master);
            }
            if let LinkAttribute::LinkNetNsId(id) = attribute {
                link.peer_is_elsewhere = true;
                link.netns = *id;
            }
            if let LinkAttribute::LinkInfo(infos) = attribute {
                link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
        }
        let index = message.header.index;
        self.links.insert(index, link);
        // The routes of an interface that goes down go without a message (`fib_sync_down_dev`).
        self.default_routes.contains(&index).then_some(Question::Routes)
    }

    fn remove_link(&mut self, message: &LinkMessage) -> Option<Question> {
        if !is_about_the_link(message) {
            return None;
        }
        let index = message.header.index;
        let removed = self.links.remove(&index)?;
        self.addresses.remove(&index);
        self.default_routes.remove(&index);
        if !removed.is_veth {
            return None;
        }
        // The end of a pair that moves to another namespace is removed here; its peer, which now is a pod's, says
        // nothing. Either may know the other: the end that was made first was announced before it had a peer.
        let knows = |(_, link): &(&u32, &Link)| link.peer == Some(index);
        let peer = self.links.iter().find(knows).map(|(peer, _)| *peer).or(removed.peer);
        peer.filter(|peer| self.links.contains_key(peer)).map(Question::Link)
    }

    pub(super) fn enter_address(&mut self, message: &AddressMessage) {
        if let Some((index, address)) = own_address(message) {
            self.addresses.entry(index).or_default().insert(address);
        }
    }

    fn remove_address(&mut self, message: &AddressMessage) {
        if let Some((index, address)) = own_address(message)
            && let Some(addresses) = self.addresses.get_mut(&index)
        {
            addresses.remove(&address);
        }
    }
}

/// Bridges send messages of the same type about their ports, with other contents: a port that leaves its bridge is
/// "deleted" (`br_ifinfo_notify`).
fn is_about_the_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn own_address(message: &AddressMessage) -> Option<(u32, (IpAddr, u8))> {
    // On a point-to-point interface, IPv4's `Address` is the peer's and `Local` its own; elsewhere both are the same.
    // IPv6 has `Local` only when there is a peer.
    let mut address = None;
    let mut local = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Address(found) = attribute {
            address = Some(*found);
        }
        if let AddressAttribute::Local(found) = attribute {
            local = Some(*found);
        }
    }
    Some((message.header.index, (local.or(address)?, message.header.prefix_len)))
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn outputs(route: &RouteMessage) -> Vec<u32> {
    let mut outputs = Vec::new();
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            outputs.push(*index);
        }
        if let RouteAttribute::MultiPath(hops) = attribute {
            outputs.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    outputs
}
