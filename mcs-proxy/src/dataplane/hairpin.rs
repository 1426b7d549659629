//! The addresses by which a pod that calls itself through a Service seems to be called.

use mcs_proxy_ebpf::abi::Address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of each family. Pods see them as the caller's, and answer them; no packet with them ever leaves the pod's own
/// interface, so that nodes may share them and nobody needs to route them.
///
/// Loopback addresses would not do: the pod drops what comes from them, and answers them to itself. Nor would IPv6's
/// link-local ones: an answer would need to know its interface, and the pod would ask for the MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hairpin {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Hairpin {
    /// IPv4: link-local, because no cluster may give pods, Services or nodes such an address (RFC 3927), and pods send
    /// it by their default route. IPv6: a unique local address whose "random" bits spell `mcspr`.
    pub const DEFAULT: Self =
        Self { v4: Ipv4Addr::new(169, 254, 42, 1), v6: Ipv6Addr::new(0xfd6d, 0x6373, 0x7072, 0, 0, 0, 0, 1) };

    /// IPv4, IPv6.
    #[must_use]
    pub fn addresses(&self) -> [Address; 2] {
        [IpAddr::from(self.v4).into(), IpAddr::from(self.v6).into()]
    }
}

/// Reads an address for `--hairpin-address-v4`.
pub fn parse_v4(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr = text.parse().map_err(|_| "not an IPv4 address".to_owned())?;
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        return Err("pods must be able to answer it: neither loopback, nor multicast, nor unspecified".into());
    }
    Ok(address)
}

/// Reads an address for `--hairpin-address-v6`.
pub fn parse_v6(text: &str) -> Result<Ipv6Addr, String> {
    let address: Ipv6Addr = text.parse().map_err(|_| "not an IPv6 address".to_owned())?;
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err("pods must be able to answer it: neither loopback, nor multicast, nor unspecified".into());
    }
    if address.is_unicast_link_local() || address.to_ipv4_mapped().is_some() {
        return Err("neither link-local (pods would ask for its MAC address) nor IPv4 in disguise".into());
    }
    Ok(address)
}
