use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges that no pod and no VIP can be in, with the name of each. Whoever can write a slice could otherwise lead a
/// Service's clients to the node itself or to the cloud's metadata service (CVE-2021-25737).
const REJECTED: [(IpNet, &str); 13] = [
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
    use super::rejection;

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
        ] {
            assert_eq!(rejection(address.parse().unwrap()), reason, "{address}");
        }
    }
}
