use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address of either family in 16 bytes, network byte order; IPv4 is v4-mapped (`::ffff:a.b.c.d`, RFC 4291
/// section 2.5.5.2). Held as two words because the kernel copies and compares those fastest.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address([u64; 2]);

/// The second word's lower half of a v4-mapped address: bytes `00 00 ff ff` as they lie in memory.
const V4_MAPPED: u64 = 0xffff_0000;

impl Address {
    pub const UNSPECIFIED: Self = Self([0, 0]);

    /// `raw`: the four bytes of the packet, loaded as they lie in memory.
    #[inline(always)]
    pub const fn from_v4_raw(raw: u32) -> Self {
        Self([0, ((raw as u64) << 32) | V4_MAPPED])
    }

    /// `raw`: the sixteen bytes of the packet as two words, loaded as they lie in memory.
    #[inline(always)]
    pub const fn from_v6_raw(raw: [u64; 2]) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] as u32 as u64 == V4_MAPPED
    }

    /// The four bytes of an IPv4 address as they lie in memory. Meaningless unless [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_raw(&self) -> u32 {
        (self.0[1] >> 32) as u32
    }

    /// The sixteen bytes as two words, as they lie in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    #[must_use]
    pub const fn to_ip(&self) -> IpAddr {
        if self.is_v4() {
            let [a, b, c, d] = self.v4_raw().to_ne_bytes();
            return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        }
        let [first, second] = [self.0[0].to_be(), self.0[1].to_be()];
        IpAddr::V6(Ipv6Addr::from_bits(((first as u128) << 64) | second as u128))
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4_raw(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                Self([((bits >> 64) as u64).to_be(), (bits as u64).to_be()])
            }
        }
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.to_ip(), formatter)
    }
}

/// A port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Port(u16);

impl Port {
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// `raw`: the two bytes of the packet, loaded as they lie in memory.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl core::fmt::Debug for Port {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.get(), formatter)
    }
}

/// IANA protocol numbers of the transports that a Service may name.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

const _: () = assert!(size_of::<Address>() == 16 && size_of::<Port>() == 2);

#[cfg(test)]
mod tests {
    use super::{Address, Port};
    use core::net::IpAddr;

    #[test]
    fn an_address_lies_in_memory_as_in_a_packet() {
        for (text, bytes) in [
            ("10.13.181.116", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 13, 181, 116]),
            ("fd00:10:13::1", [0xfd, 0, 0, 0x10, 0, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            let ip: IpAddr = text.parse().unwrap();
            let address = Address::from(ip);
            let [first, second] = address.words();
            assert_eq!([first.to_ne_bytes(), second.to_ne_bytes()].concat(), bytes);
            assert_eq!(address.to_ip(), ip);
            assert_eq!(address.is_v4(), ip.is_ipv4());
        }
    }

    #[test]
    fn a_port_lies_in_memory_as_in_a_packet() {
        assert_eq!(Port::new(8080).raw().to_ne_bytes(), [0x1f, 0x90]);
        assert_eq!(Port::new(8080).get(), 8080);
    }
}
