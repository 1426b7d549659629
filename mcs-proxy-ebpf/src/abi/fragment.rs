//! What is remembered of a datagram that comes in fragments: only the first of them has the ports.

use super::Address;
use crate::select::mix;

/// Key of `fragments`: what names a fragmented datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    /// Identification, network byte order; IPv4's 16 bits as they lie in memory, in the lower half.
    pub identification: u32,
    /// IPv6: 0.
    pub protocol: u8,
    // Two words: three bytes are zeroed by a call to `memset`.
    pad: u8,
    pad_word: u16,
}

impl FragmentKey {
    /// IPv6 does not count the protocol in: a later fragment need not know it (RFC 8200, section 4.5).
    #[inline(always)]
    pub const fn new(source: Address, destination: Address, identification: u32, protocol: u8) -> Self {
        let protocol = if destination.is_v4() { protocol } else { 0 };
        Self { source, destination, identification, protocol, pad: 0, pad_word: 0 }
    }
}

/// Value of `fragments`: what the first fragment was translated to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The new destination on the way from the pod, the new source on the way to it.
    pub address: Address,
    /// Of everything else, and of the key. The kernel may hand the memory to another datagram while a program reads
    /// it; what was read then, half of each perhaps, does not fit.
    pub seal: u64,
    /// Index of the interface that the first fragment passed.
    pub interface: u32,
    /// Ticks when it did.
    pub seen: u32,
    pub service: u32,
    pub backend_id: u32,
}

impl Fragment {
    /// With the seal that belongs to it.
    #[inline(always)]
    #[must_use]
    pub const fn sealed(mut self, key: &FragmentKey) -> Self {
        self.seal = self.seal_for(key);
        self
    }

    /// Whether this is what was written under the key.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, key: &FragmentKey) -> bool {
        self.seal == self.seal_for(key)
    }

    #[inline(always)]
    const fn seal_for(&self, key: &FragmentKey) -> u64 {
        let [source_first, source_second] = key.source.words();
        let [destination_first, destination_second] = key.destination.words();
        let [first, second] = self.address.words();
        mix([
            source_first,
            source_second,
            destination_first,
            destination_second,
            key.identification as u64 | ((key.protocol as u64) << 32),
            first,
            second,
            self.interface as u64 | ((self.seen as u64) << 32),
            self.service as u64 | ((self.backend_id as u64) << 32),
        ])
    }
}

const _: () = assert!(size_of::<FragmentKey>() == 40 && size_of::<Fragment>() == 40);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    #[test]
    fn a_seal_fits_its_own_key_and_fields_alone() {
        let address = |n: u8| Address::from(IpAddr::V4(Ipv4Addr::new(10, 12, 0, n)));
        let key = FragmentKey::new(address(9), address(1), 7, 17);
        let entry =
            Fragment { address: address(2), seal: 0, interface: 3, seen: 4, service: 5, backend_id: 6 }
                .sealed(&key);
        assert!(entry.is_of(&key));
        for other in [
            FragmentKey::new(address(8), address(1), 7, 17),
            FragmentKey::new(address(9), address(3), 7, 17),
            FragmentKey::new(address(9), address(1), 8, 17),
            FragmentKey::new(address(9), address(1), 7, 6),
        ] {
            assert!(!entry.is_of(&other));
        }
        for torn in [
            Fragment { address: address(4), ..entry },
            Fragment { interface: 0, ..entry },
            Fragment { seen: 0, ..entry },
            Fragment { service: 0, ..entry },
            Fragment { backend_id: 0, ..entry },
            Fragment { seal: 0, ..entry },
        ] {
            assert!(!torn.is_of(&key));
        }
    }
}
