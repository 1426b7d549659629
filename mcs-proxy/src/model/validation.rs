use super::{Settings, SourceCluster};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Why an endpoint that a slice lists gets no traffic, whatever its conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No pod can have such an address; the range's name.
    Range(&'static str),
    /// Port 0.
    NoPort,
    /// An import that names this node.
    NodeAddress,
    /// An import that names a ClusterIP of this cluster: traffic would go round in circles, or to another Service.
    Vip,
    /// An import from outside the ranges that the settings declare for its cluster.
    OutsideItsRanges,
    /// An import from inside the ranges that the settings declare for this cluster.
    InsideOurRanges,
}

impl fmt::Display for Refusal {
    /// What the address is: `link-local`, `an address of this node`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Range(name) => name,
            Self::NoPort => "without a port",
            Self::NodeAddress => "an address of this node",
            Self::Vip => "a ClusterIP of this cluster",
            Self::OutsideItsRanges => "outside the cidrs that the settings declare for its cluster",
            Self::InsideOurRanges => "inside the cidrs that the settings declare for this cluster",
        })
    }
}

/// What endpoints are held against, beyond the ranges that are wrong everywhere.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Every ClusterIP of this cluster, and how many Services have it.
    vips: BTreeMap<IpAddr, u32>,
    /// ClusterIPs that a second Service has since [`Self::take_sharing`], or has no longer.
    sharing: BTreeSet<IpAddr>,
    /// Of the node that this daemon runs on.
    node: Vec<IpAddr>,
    /// Of the clusters that declare them.
    ranges: BTreeMap<String, Vec<IpNet>>,
}

impl Surroundings {
    /// Why an endpoint of a slice from `source` gets no traffic, or `None` if it may. `own_cluster`: this cluster's
    /// name.
    #[must_use]
    pub fn refusal(&self, address: SocketAddr, source: &SourceCluster, own_cluster: &str) -> Option<Refusal> {
        let ip = address.ip();
        if let Some(range) = rejection(ip) {
            return Some(Refusal::Range(range));
        }
        if address.port() == 0 {
            return Some(Refusal::NoPort);
        }
        let cluster = match source {
            // A pod on the host's network has the node's address.
            SourceCluster::Local => return None,
            SourceCluster::Remote(name) => Some(&**name),
            SourceCluster::Unknown => None,
        };
        let holds = |ranges: &Vec<IpNet>| ranges.iter().any(|range| range.contains(&ip));
        let ranges_of = |name: &str| self.ranges.get(name).filter(|ranges| !ranges.is_empty());
        if self.node.contains(&ip) {
            Some(Refusal::NodeAddress)
        } else if self.vips.contains_key(&ip) {
            Some(Refusal::Vip)
        } else if ranges_of(own_cluster).is_some_and(holds) {
            Some(Refusal::InsideOurRanges)
        } else if cluster.and_then(ranges_of).is_some_and(|ranges| !holds(ranges)) {
            Some(Refusal::OutsideItsRanges)
        } else {
            None
        }
    }

    /// Whether several Services have this ClusterIP. The API server sees to it that no two of one cluster have; manifests
    /// and ServiceImports may.
    #[must_use]
    pub fn is_shared(&self, vip: IpAddr) -> bool {
        self.vips.get(&vip).is_some_and(|users| *users > 1)
    }

    /// ClusterIPs whose sharing has begun or ended.
    pub(super) fn take_sharing(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.sharing)
    }

    pub(super) fn set_node(&mut self, addresses: &[IpAddr]) {
        addresses.clone_into(&mut self.node);
    }

    pub(super) fn set_ranges(&mut self, settings: &Settings) {
        self.ranges = settings
            .clusters
            .iter()
            .filter(|(_, cluster)| !cluster.cidrs.is_empty())
            .map(|(name, cluster)| (name.clone(), cluster.cidrs.clone()))
            .collect();
    }

    /// Puts a Service's ClusterIPs in the place of its `former` ones; returns those that are a ClusterIP only now,
    /// or no longer.
    pub(super) fn exchange_vips(&mut self, former: &[IpAddr], now: &[IpAddr]) -> Vec<IpAddr> {
        let mut changed = Vec::new();
        for vip in now.iter().filter(|vip| !former.contains(vip)) {
            let users = self.vips.entry(*vip).or_default();
            *users += 1;
            match *users {
                1 => changed.push(*vip),
                2 => drop(self.sharing.insert(*vip)),
                _ => {}
            }
        }
        for vip in former.iter().filter(|vip| !now.contains(vip)) {
            if let Some(users) = self.vips.get_mut(vip) {
                *users -= 1;
                match *users {
                    0 => {
                        self.vips.remove(vip);
                        changed.push(*vip);
                    }
                    1 => drop(self.sharing.insert(*vip)),
                    _ => {}
                }
            }
        }
        changed
    }
}

/// Ranges that no pod and no VIP can be in, with the name of each. Whoever can write a slice could otherwise lead a
/// Service's clients to the node itself or to the cloud's metadata service (CVE-2021-25737).
const REJECTED: [(IpNet, &str); 17] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v6(Ipv6Addr::UNSPECIFIED, 128), "unspecified"),
    (v6(Ipv6Addr::LOCALHOST, 128), "loopback"),
    (v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "link-local"),
    (v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "multicast"),
    (v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), "an IPv4-mapped IPv6 address"),
    // The deprecated IPv4-compatible form would be the second way to write an IPv4 address.
    (v6(Ipv6Addr::UNSPECIFIED, 96), "an IPv4-compatible IPv6 address"),
    // The metadata services of Alibaba Cloud and Oracle Cloud, and what Azure's platform answers at.
    (v4(100, 100, 100, 200, 32), "a cloud's metadata service"),
    (v4(192, 0, 0, 192, 32), "a cloud's metadata service"),
    (v4(168, 63, 129, 16, 32), "a cloud's metadata service"),
    // 169.254.0.0/16 by the well-known prefix of NAT64 (RFC 6052).
    (v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0), 112), "link-local, by NAT64"),
    // The metadata services of AWS and Google Cloud, within reach of every pod by unique local addresses.
    (v6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128), "a cloud's metadata service"),
    (v6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128), "a cloud's metadata service"),
];

/// Why `address` may be neither an endpoint nor a VIP, or `None` if it may.
#[must_use]
pub fn rejection(address: IpAddr) -> Option<&'static str> {
    REJECTED.iter().find(|(range, _)| range.contains(&address)).map(|&(_, reason)| reason)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(address: Ipv6Addr, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

#[cfg(test)]
mod tests {
    use super::{Refusal, Surroundings, rejection};
    use crate::model::{ClusterSettings, Settings, SourceCluster};
    use std::net::IpAddr;

    const NODE: &str = "192.0.2.12";
    const VIP: &str = "10.13.181.116";

    fn surroundings() -> Surroundings {
        let cluster =
            |cidr: &str| ClusterSettings { cidrs: vec![cidr.parse().unwrap()], ..Default::default() };
        let mut surroundings = Surroundings::default();
        surroundings.set_node(&[NODE.parse().unwrap()]);
        surroundings.exchange_vips(&[], &[VIP.parse().unwrap()]);
        surroundings.set_ranges(&Settings {
            clusters: [("member1", cluster("10.10.0.0/16")), ("member2", cluster("10.12.0.0/16"))]
                .map(|(name, cluster)| (name.to_owned(), cluster))
                .into(),
            ..Default::default()
        });
        surroundings
    }

    #[test]
    fn an_import_names_neither_our_node_nor_our_services_nor_our_pods_nor_what_its_cluster_does_not_own() {
        use Refusal::{InsideOurRanges, NoPort, NodeAddress, OutsideItsRanges, Range, Vip};
        let remote = |name: &str| SourceCluster::Remote(name.into());
        for (address, source, expected) in [
            ("10.10.0.6:80", remote("member1"), None),
            ("10.14.0.6:80", remote("member1"), Some(OutsideItsRanges)),
            ("10.14.0.6:80", remote("member3"), None),
            ("10.14.0.6:80", SourceCluster::Unknown, None),
            ("10.12.0.6:80", remote("member3"), Some(InsideOurRanges)),
            ("10.12.0.6:80", SourceCluster::Unknown, Some(InsideOurRanges)),
            ("10.12.0.6:80", SourceCluster::Local, None),
            ("192.0.2.12:80", remote("member1"), Some(NodeAddress)),
            ("192.0.2.12:80", SourceCluster::Local, None),
            ("10.13.181.116:80", remote("member1"), Some(Vip)),
            ("10.13.181.116:80", SourceCluster::Unknown, Some(Vip)),
            ("10.10.0.6:0", remote("member1"), Some(NoPort)),
            ("169.254.169.254:80", SourceCluster::Local, Some(Range("link-local"))),
            ("[fd00:ec2::254]:80", SourceCluster::Local, Some(Range("a cloud's metadata service"))),
        ] {
            let refusal = surroundings().refusal(address.parse().unwrap(), &source, "member2");
            assert_eq!(refusal, expected, "{address} of {source}");
        }
    }

    #[test]
    fn an_address_is_a_clusterip_for_as_long_as_any_service_has_it() {
        let [a, b] = ["10.13.0.1", "10.13.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let mut surroundings = Surroundings::default();
        assert_eq!(surroundings.exchange_vips(&[], &[a]), [a]);
        assert_eq!(surroundings.exchange_vips(&[], &[a]), <[IpAddr; 0]>::default(), "another Service's");
        assert!(surroundings.is_shared(a));
        assert_eq!(surroundings.take_sharing(), [a].into());
        assert_eq!(surroundings.exchange_vips(&[a], &[b]), [b]);
        assert!(!surroundings.is_shared(a));
        assert_eq!(surroundings.take_sharing(), [a].into());
        assert_eq!(surroundings.exchange_vips(&[a], &[]), [a]);
        assert!(surroundings.vips.contains_key(&b) && !surroundings.vips.contains_key(&a));
    }

    #[test]
    fn addresses_that_no_pod_can_have_are_rejected_with_their_reason() {
        for (address, reason) in [
            ("10.10.0.6", None),
            ("192.0.2.10", None),
            ("fd00:10:10::6", None),
            ("2001:db8::1", None),
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("unspecified")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.254", Some("loopback")),
            ("169.254.169.254", Some("link-local")),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("255.255.255.255", Some("broadcast")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("::ffff:10.10.0.6", Some("an IPv4-mapped IPv6 address")),
            ("::10.10.0.6", Some("an IPv4-compatible IPv6 address")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("ff02::1", Some("multicast")),
            ("fd00:ec2::254", Some("a cloud's metadata service")),
            ("100.100.100.200", Some("a cloud's metadata service")),
            ("100.100.100.201", None),
            ("192.0.0.192", Some("a cloud's metadata service")),
            ("168.63.129.16", Some("a cloud's metadata service")),
            ("64:ff9b::a9fe:a9fe", Some("link-local, by NAT64")),
            ("64:ff9b::a0a:6", None),
        ] {
            assert_eq!(rejection(address.parse().unwrap()), reason, "{address}");
        }
    }
}
