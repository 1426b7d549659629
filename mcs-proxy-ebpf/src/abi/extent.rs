//! Frontends and the extents they point to: a header and the slots behind it, in the flat array `backends`.

use super::{Address, Port};

/// Key of `services`. The value is a frontend's index (`u32`), which never changes while the entry lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub vip: Address,
    pub port: Port,
    pub protocol: u8,
    pad: [u8; 5],
}

impl ServiceKey {
    #[inline(always)]
    pub const fn new(vip: Address, port: Port, protocol: u8) -> Self {
        Self { vip, port, protocol, pad: [0; 5] }
    }
}

/// Value of `frontends`, by frontend index: the index in `backends` of the extent's header. Zero, which no extent
/// uses, means that the frontend is vacant. User space stores it with one aligned 8-byte release store, and that
/// store is the whole change of a Service.
pub type FrontendWord = u64;

/// Element of `backends`: a [`Header`] or a [`Slot`], told apart by `kind`. All zero is neither.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Element {
    body: [u64; 2],
    /// A slot's port.
    port: Port,
    kind: u8,
    algorithm: u8,
    /// A slot's backend id; a header's flags.
    tail: u32,
}

const KIND_HEADER: u8 = 1;
const KIND_SLOT: u8 = 2;

/// Bits of a header's flags.
const PACKETS_ONLY: u32 = 1;
const PROBE: u32 = 2;

/// What stands before the slots of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Slots that follow.
    pub count: u32,
    /// Index into `cursors`, `service_counters` and part of the key of `affinity`.
    pub service: u32,
    /// The frontend this extent was written for. A frontend that points to another's extent reads as corrupt.
    pub frontend: u32,
    pub algorithm: Algorithm,
    /// ClientIP affinity's timeout in seconds; 0: no affinity.
    pub affinity_seconds: u32,
    /// Sockets are left to the packet path (`mcs-proxy.io/socket-path: "false"`).
    pub packets_only: bool,
    /// One more slot stands behind the `count`, for one new flow alone: see [`Element::probe_word`].
    pub probe: bool,
}

/// One turn of the wheel. A backend may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub address: Address,
    pub port: Port,
    /// Index into `backend_state` and `backend_counters`.
    pub backend: u32,
}

impl Element {
    #[inline(always)]
    pub const fn header(header: &Header) -> Self {
        Self {
            body: [
                header.count as u64 | ((header.service as u64) << 32),
                header.frontend as u64 | ((header.affinity_seconds as u64) << 32),
            ],
            port: Port::from_raw(0),
            kind: KIND_HEADER,
            algorithm: header.algorithm as u8,
            tail: if header.packets_only { PACKETS_ONLY } else { 0 } | if header.probe { PROBE } else { 0 },
        }
    }

    #[inline(always)]
    pub const fn slot(slot: &Slot) -> Self {
        Self {
            body: slot.address.words(),
            port: slot.port,
            kind: KIND_SLOT,
            algorithm: 0,
            tail: slot.backend,
        }
    }

    /// `None` if this is no header, or one with an algorithm this contract does not know.
    #[inline(always)]
    pub const fn as_header(&self) -> Option<Header> {
        if self.kind != KIND_HEADER {
            return None;
        }
        let Some(algorithm) = Algorithm::from_number(self.algorithm) else { return None };
        Some(Header {
            count: self.body[0] as u32,
            service: (self.body[0] >> 32) as u32,
            frontend: self.body[1] as u32,
            affinity_seconds: (self.body[1] >> 32) as u32,
            algorithm,
            packets_only: self.tail & PACKETS_ONLY != 0,
            probe: self.tail & PROBE != 0,
        })
    }

    /// The word of a slot that holds its backend's id. A probe's slot is taken by exchanging it for 0: whoever gets the id
    /// has the slot, and nobody after.
    #[inline(always)]
    pub const fn probe_word(element: *mut Self) -> *mut u32 {
        element.cast::<u8>().wrapping_add(core::mem::offset_of!(Self, tail)).cast()
    }

    #[inline(always)]
    pub const fn as_slot(&self) -> Option<Slot> {
        if self.kind != KIND_SLOT {
            return None;
        }
        Some(Slot { address: Address::from_v6_raw(self.body), port: self.port, backend: self.tail })
    }
}

/// How a frontend picks the slot of a new flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    RoundRobin = 1,
    Random = 2,
    Maglev = 3,
}

impl Algorithm {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::RoundRobin),
            2 => Some(Self::Random),
            3 => Some(Self::Maglev),
            _ => None,
        }
    }
}

/// Value of `backend_state`, by backend id: one word, written with one store. Flows and affinity keep id and
/// generation; another generation means that the id has passed to another backend.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BackendState(u64);

/// Whether a backend may take or keep flows.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// The id is vacant, or its backend is not to be used any more: UDP flows select anew.
    Gone = 0,
    /// In the slots of a frontend.
    Live = 1,
    /// Takes no new flows but still serves those it has: terminating, or in a lower tier.
    Serving = 2,
}

impl BackendState {
    #[inline(always)]
    pub const fn new(generation: u32, liveness: Liveness) -> Self {
        Self(generation as u64 | ((liveness as u64) << 32))
    }

    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub const fn liveness(self) -> Liveness {
        match (self.0 >> 32) as u8 {
            1 => Liveness::Live,
            2 => Liveness::Serving,
            _ => Liveness::Gone,
        }
    }

    /// Whether a flow that remembers `generation` may go on with this backend.
    #[inline(always)]
    pub const fn keeps(self, generation: u32) -> bool {
        self.generation() == generation && !matches!(self.liveness(), Liveness::Gone)
    }
}

impl core::fmt::Debug for BackendState {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{:?} (generation {})", self.liveness(), self.generation())
    }
}

const _: () = assert!(size_of::<ServiceKey>() == 24);
const _: () = assert!(size_of::<Element>() == 24 && align_of::<Element>() == 8);
const _: () = assert!(size_of::<BackendState>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn headers_and_slots_survive_the_array_and_are_told_apart() {
        let header = Header {
            count: 3,
            service: 7,
            frontend: 65535,
            algorithm: Algorithm::Random,
            affinity_seconds: 10_800,
            packets_only: true,
            probe: true,
        };
        let slot = Slot {
            address: Address::from("10.10.0.6".parse::<IpAddr>().unwrap()),
            port: Port::new(8080),
            backend: 42,
        };
        assert_eq!(Element::header(&header).as_header(), Some(header));
        assert_eq!(Element::header(&header).as_slot(), None);
        assert_eq!(Element::slot(&slot).as_slot(), Some(slot));
        assert_eq!(Element::slot(&slot).as_header(), None);
        assert_eq!(Element::default().as_header(), None);
        assert_eq!(Element::default().as_slot(), None);
    }

    #[test]
    fn a_flow_keeps_its_backend_only_while_the_id_is_still_its_own() {
        let state = BackendState::new(5, Liveness::Serving);
        assert!(state.keeps(5));
        assert!(!state.keeps(4));
        assert!(!BackendState::new(5, Liveness::Gone).keeps(5));
        assert_eq!(BackendState::default().liveness(), Liveness::Gone);
    }
}
