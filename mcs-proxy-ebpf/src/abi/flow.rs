//! What is remembered about a flow, on the way to its backend and on the way back.

use super::{Address, Port, Protocol};
use crate::select::mix;

/// Key of the flow maps. In `flows` and `transient` the peer is the VIP that the client called; in `replies` and
/// `transient_replies` it is the backend that answers, and the client's port is the one on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub client: Address,
    pub peer: Address,
    pub client_port: Port,
    pub peer_port: Port,
    pub protocol: u8,
    /// Two fields: three bytes would be cleared by a call, whose frame the stack has no room for.
    pad: u8,
    pad_word: u16,
}

impl Tuple {
    #[inline(always)]
    pub const fn new(
        client: Address,
        client_port: Port,
        peer: Address,
        peer_port: Port,
        protocol: u8,
    ) -> Self {
        Self { client, peer, client_port, peer_port, protocol, pad: 0, pad_word: 0 }
    }
}

/// Flows are dated in ticks: `jiffies64 >> TICK_SHIFT`, truncated to 32 bits. Jiffies cost a load where the clock
/// helpers cost 20 ns or more; the shift makes the 32 bits last for years. `CONFIG_HZ >> TICK_SHIFT` ticks are
/// about a second.
pub const TICK_SHIFT: u32 = 6;

/// Value of `flows` and `transient`. It repeats the VIP and the client's port: the kernel reuses freed hash
/// elements at once, so a value that was looked up may become another flow's, and a mismatch reads as a miss.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub backend: Address,
    pub vip: Address,
    pub backend_port: Port,
    /// The client's port as its backend sees it: another one where two conversations would else be one on the wire.
    pub wire_port: Port,
    /// With `protocol` and `state` an aligned word, so that bits of the state can be set atomically.
    pub client_port: Port,
    pub protocol: u8,
    /// Both directions' state; the reply has none of its own.
    pub state: FlowState,
    pub backend_id: u32,
    pub generation: u32,
    /// Index of the interface (in the node's network namespace) whose pod opened the flow.
    pub interface: u32,
    /// TCP: the sequence number of the SYN that opened the flow, network byte order. A SYN with another one opens a
    /// new connection, a SYN with this one is a retransmit. SCTP: the same with the initiate tag of the INIT. UDP:
    /// ticks when the flow was opened.
    pub isn: u32,
    /// Index into `cursors` and `service_counters`.
    pub service: u32,
    /// Ticks at the last packet seen, renewed about once a second.
    pub last_seen: u32,
}

impl Flow {
    /// Whether packets are translated alike by both.
    #[inline(always)]
    #[must_use]
    pub fn leads_as(&self, other: &Self) -> bool {
        self.vip == other.vip
            && self.backend == other.backend
            && self.backend_port == other.backend_port
            && self.wire_port == other.wire_port
            && self.client_port == other.client_port
            && self.protocol == other.protocol
    }
}

/// Value of `replies` and `transient_replies`. It repeats the backend and the port on the wire, as
/// [`Flow`] repeats the VIP and the client's port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub vip: Address,
    pub backend: Address,
    pub vip_port: Port,
    /// As in [`Flow`].
    pub wire_port: Port,
    pub client_port: Port,
    pub protocol: u8,
    /// Of the flow's state [`FlowState::ANSWERED`], once anything came back, and [`FlowState::BESIDE`].
    pub state: FlowState,
    pub backend_id: u32,
    pub service: u32,
    /// As in [`Flow`]. A reply on any other interface is not this flow's.
    pub interface: u32,
    pub last_seen: u32,
}

impl Reply {
    /// As [`Flow::leads_as`].
    #[inline(always)]
    #[must_use]
    pub fn leads_as(&self, other: &Self) -> bool {
        self.vip == other.vip
            && self.backend == other.backend
            && self.vip_port == other.vip_port
            && self.wire_port == other.wire_port
            && self.client_port == other.client_port
            && self.protocol == other.protocol
    }
}

/// Value of `roster`: an established flow, by its key and by what tells it from a later one with the same key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    pub key: Tuple,
    /// As in [`Flow`].
    pub isn: u32,
    pub pad: u32,
}

/// How many ticks an established flow may be silent before the programs forget it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silences {
    pub tcp_established: u32,
    /// One side has sent a FIN.
    pub tcp_half_closed: u32,
    pub tcp_closed: u32,
    /// UDP with traffic both ways.
    pub udp_stream: u32,
    pub sctp_established: u32,
    pub sctp_closed: u32,
}

impl Silences {
    #[inline(always)]
    #[must_use]
    pub const fn of(&self, protocol: u8, state: FlowState) -> u32 {
        if protocol == Protocol::Udp.number() {
            self.udp_stream
        } else if protocol == Protocol::Sctp.number() {
            if state.is_closed() { self.sctp_closed } else { self.sctp_established }
        } else if state.is_closed() {
            self.tcp_closed
        } else if state.is_half_closed() {
            self.tcp_half_closed
        } else {
            self.tcp_established
        }
    }

    /// Whether a flow that was seen last at `then` has been silent for too long at `now`. The tick wraps; what lies
    /// ahead is just now.
    #[inline(always)]
    #[must_use]
    pub const fn are_over(&self, now: u32, then: u32, protocol: u8, state: FlowState) -> bool {
        let age = now.wrapping_sub(then);
        age <= u32::MAX / 2 && age > self.of(protocol, state)
    }
}

/// How far a flow has come: bits that are only ever added.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FlowState(u8);

impl FlowState {
    /// The first packet has passed, and no answer.
    pub const NEW: Self = Self(0);
    /// The backend has answered: TCP's SYN-ACK, or a datagram.
    pub const ANSWERED: Self = Self(1);
    /// The client has confirmed the answer, and the flow is in `flows`: nothing but its end takes it out.
    pub const ESTABLISHED: Self = Self(2);
    pub const CLIENT_FIN: Self = Self(4);
    pub const BACKEND_FIN: Self = Self(8);
    pub const RESET: Self = Self(16);
    /// The backend is the client itself: packets turn round at its own interface. Set from the beginning or never.
    pub const HAIRPIN: Self = Self(32);
    /// The backend is on the client's bridge: packets go there without the host. Set from the beginning or never.
    pub const ON_LINK: Self = Self(64);
    /// The backend is another pod of this node, and packets of both directions go past the host's IP stack. Set from the
    /// beginning or never.
    pub const BESIDE: Self = Self(128);

    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub const fn bits(self) -> u8 {
        self.0
    }

    #[inline(always)]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline(always)]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The daemon has ended it (`state: drop`): its pod's next packet is answered by a RST, or is one. No flow begins with
    /// both bits, so that they are free to mean this, and packets to oneself leave the way that is fast at the first of them.
    pub const CUT: Self = Self(Self::HAIRPIN.0 | Self::ON_LINK.0);

    #[inline(always)]
    pub const fn is_cut(self) -> bool {
        self.has(Self::CUT)
    }

    /// Its packets need more than a new destination.
    #[inline(always)]
    pub const fn is_special(self) -> bool {
        self.0 & (Self::HAIRPIN.0 | Self::ON_LINK.0) != 0
    }

    /// Nothing more is to come but what is late: both sides have sent a FIN, or one has sent a RST.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        self.has(Self::RESET) || self.has(Self::CLIENT_FIN.with(Self::BACKEND_FIN))
    }

    /// One side has sent a FIN: the other may go on sending for as long as it likes.
    #[inline(always)]
    pub const fn is_half_closed(self) -> bool {
        !self.is_closed() && (self.has(Self::CLIENT_FIN) || self.has(Self::BACKEND_FIN))
    }
}

impl core::fmt::Debug for FlowState {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = [
            (Self::ANSWERED, "answered"),
            (Self::ESTABLISHED, "established"),
            (Self::CLIENT_FIN, "client's FIN"),
            (Self::BACKEND_FIN, "backend's FIN"),
            (Self::RESET, "reset"),
            (Self::HAIRPIN, "hairpin"),
            (Self::ON_LINK, "on link"),
            (Self::BESIDE, "beside the host"),
        ];
        let bits = names.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name);
        formatter.debug_list().entries(bits).finish()
    }
}

/// Key of `affinity`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityKey {
    pub client: Address,
    pub service: u32,
    pad: u32,
}

impl AffinityKey {
    #[inline(always)]
    pub const fn new(service: u32, client: Address) -> Self {
        Self { client, service, pad: 0 }
    }
}

/// Value of `affinity`: where this client's last flow went. It has the backend's address as well as its id, so that
/// nobody need search the slots for it: an id of the same generation means the same address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    pub backend: Address,
    /// Of everything else but `last_used`, and of the key. The kernel may hand the memory to another client while a
    /// program reads it; what was read then, half of each perhaps, does not fit.
    pub seal: u64,
    pub backend_id: u32,
    pub generation: u32,
    /// Ticks at the last new flow.
    pub last_used: u32,
    pub backend_port: Port,
    pub pad: u16,
}

impl Affinity {
    /// With the seal that belongs to it.
    #[inline(always)]
    #[must_use]
    pub const fn sealed(mut self, key: &AffinityKey) -> Self {
        self.seal = self.seal_for(key);
        self
    }

    /// Whether this is what was written under the key.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, key: &AffinityKey) -> bool {
        self.seal == self.seal_for(key)
    }

    #[inline(always)]
    const fn seal_for(&self, key: &AffinityKey) -> u64 {
        let [client_first, client_second] = key.client.words();
        let [backend_first, backend_second] = self.backend.words();
        mix([
            client_first,
            client_second,
            backend_first,
            backend_second,
            self.backend_id as u64 | ((self.generation as u64) << 32),
            key.service as u64 | ((self.backend_port.raw() as u64) << 32),
        ])
    }
}

const _: () = assert!(size_of::<Tuple>() == 40);
const _: () = assert!(size_of::<Flow>() == 64);
const _: () = assert!(size_of::<Reply>() == 56);
const _: () = assert!(size_of::<RosterEntry>() == 48 && size_of::<Silences>() == 24);
const _: () = assert!(size_of::<AffinityKey>() == 24 && size_of::<Affinity>() == 40);

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    #[test]
    fn established_flows_may_be_silent_by_protocol_and_state() {
        let silences = Silences {
            tcp_established: 1000,
            tcp_half_closed: 100,
            tcp_closed: 10,
            udp_stream: 50,
            sctp_established: 60,
            sctp_closed: 4,
        };
        let established = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
        let half = established.with(FlowState::CLIENT_FIN);
        let [tcp, udp, sctp] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number);
        for (protocol, state, silence) in [
            (tcp, established, 1000),
            (tcp, half, 100),
            (tcp, half.with(FlowState::BACKEND_FIN), 10),
            (tcp, established.with(FlowState::RESET), 10),
            (udp, established, 50),
            (sctp, established, 60),
            (sctp, established.with(FlowState::RESET), 4),
        ] {
            for now in [5, 5000, u32::MAX] {
                let is_over = |age: u32| silences.are_over(now, now.wrapping_sub(age), protocol, state);
                assert_eq!([is_over(silence), is_over(silence + 1)], [false, true], "{protocol} {state:?}");
                // Seen by another CPU a moment after `now` was read.
                assert!(!is_over(u32::MAX));
            }
        }
    }

    #[test]
    fn a_seal_fits_its_own_key_and_fields_alone() {
        let address = |n: u8| Address::from(IpAddr::V4(Ipv4Addr::new(10, 12, 0, n)));
        let key = AffinityKey::new(7, address(9));
        let entry = Affinity {
            backend: address(1),
            seal: 0,
            backend_id: 3,
            generation: 2,
            last_used: 0,
            backend_port: Port::new(8080),
            pad: 0,
        }
        .sealed(&key);
        assert!(entry.is_of(&key));
        assert!(Affinity { last_used: 99, ..entry }.is_of(&key), "renewed in place");
        for other in [AffinityKey::new(8, address(9)), AffinityKey::new(7, address(8))] {
            assert!(!entry.is_of(&other));
        }
        for torn in [
            Affinity { backend: address(2), ..entry },
            Affinity { backend_id: 4, ..entry },
            Affinity { generation: 3, ..entry },
            Affinity { backend_port: Port::new(8081), ..entry },
            Affinity { seal: 0, ..entry },
        ] {
            assert!(!torn.is_of(&key));
        }
    }
}
