//! What the programs tell whoever listens: `events`.
//!
//! Element 0 is the [`Switch`]; the others are a ring that the programs write round and round, and that nobody empties:
//! each listener keeps its own place and tells by the numbers what it has missed. So several may listen, and none
//! takes anything from another, as they would of a `BPF_MAP_TYPE_RINGBUF`, which has one place for all.

use super::{Address, FlowState, Port, Verdict};
use crate::select::mix;

/// Events that the ring has room for; a power of two.
pub const EVENTS: u32 = 4096;

/// What happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A flow begins.
    New = 0,
    /// Its backend has answered for the first time.
    Reply = 1,
    /// Both sides have sent a FIN, or one a RST.
    Closed = 2,
    /// Nobody is there to answer, and the client was told so, or the answers have used up their share.
    Rejected = 3,
    /// A packet went no further.
    Dropped = 4,
    /// A packet to a VIP of ours went on as it was.
    Passed = 5,
}

impl EventKind {
    pub const ALL: [Self; 6] =
        [Self::New, Self::Reply, Self::Closed, Self::Rejected, Self::Dropped, Self::Passed];

    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::New),
            1 => Some(Self::Reply),
            2 => Some(Self::Closed),
            3 => Some(Self::Rejected),
            4 => Some(Self::Dropped),
            5 => Some(Self::Passed),
            _ => None,
        }
    }

    /// Of the verdict about a packet of no flow; `None`: it makes no event, as it is no news, or another program has
    /// the last word.
    #[inline(always)]
    #[must_use]
    pub const fn of_opening(verdict: Verdict) -> Option<Self> {
        match verdict {
            // A new flow to the pod itself, and one past the host, have their packet translated by another program.
            Verdict::NewFlow | Verdict::HairpinMissing | Verdict::PeerMissing => Some(Self::New),
            Verdict::Rejected | Verdict::RejectLimited | Verdict::ConnectRefused => Some(Self::Rejected),
            Verdict::TupleTaken | Verdict::DirectTaken | Verdict::RewriteFailed => Some(Self::Dropped),
            Verdict::NoService
            | Verdict::UnknownConnection
            | Verdict::NoBackend
            | Verdict::FlowsFull
            | Verdict::Corrupt
            | Verdict::Orphaned => Some(Self::Passed),
            Verdict::NotOurs
            | Verdict::NotIp
            | Verdict::Malformed
            | Verdict::Unsupported
            | Verdict::Forwarded
            | Verdict::NoFlow
            | Verdict::OtherInterface
            | Verdict::Replied
            | Verdict::NotPromoted
            | Verdict::EchoReplied
            | Verdict::IcmpTranslated
            | Verdict::HostRedirect
            | Verdict::HairpinForwarded
            | Verdict::HairpinReplied
            | Verdict::OpenMissing
            | Verdict::Connected
            | Verdict::LoneFragment
            | Verdict::OddMissing
            | Verdict::Redirected
            | Verdict::Ended => None,
        }
    }
}

/// Element of `events`, from 1 on: that of number `n` is `1 + n % EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of everything else. Whoever reads while it is written, or while two write, reads what does not fit; so no order
    /// of stores and loads is needed.
    pub seal: u64,
    /// Its number, counted from 1 since the maps were made.
    pub sequence: u64,
    /// Nanoseconds since boot, those asleep included (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// The unspecified address on the socket path: a socket that connects has none yet.
    pub client: Address,
    /// What was called.
    pub vip: Address,
    /// The unspecified address if none was chosen.
    pub backend: Address,
    /// The kernel's number of the socket (`SO_COOKIE`), on the socket path; else 0.
    pub cookie: u64,
    pub client_port: Port,
    pub vip_port: Port,
    pub backend_port: Port,
    pub protocol: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// A [`Verdict`].
    pub verdict: u8,
    /// The flow's, if there is one.
    pub state: FlowState,
    pub pad: u16,
    /// Index of the client's interface in the node's network namespace; 0 on the socket path.
    pub interface: u32,
}

impl Event {
    pub const EMPTY: Self = Self {
        seal: 0,
        sequence: 0,
        time: 0,
        client: Address::UNSPECIFIED,
        vip: Address::UNSPECIFIED,
        backend: Address::UNSPECIFIED,
        cookie: 0,
        client_port: Port::from_raw(0),
        vip_port: Port::from_raw(0),
        backend_port: Port::from_raw(0),
        protocol: 0,
        kind: 0,
        verdict: 0,
        state: FlowState::NEW,
        pad: 0,
        interface: 0,
    };

    /// The seal that belongs to it.
    #[inline(always)]
    #[must_use]
    pub const fn seal_for(&self) -> u64 {
        let [client, client_end] = self.client.words();
        let [vip, vip_end] = self.vip.words();
        let [backend, backend_end] = self.backend.words();
        let ports = self.client_port.raw() as u64
            | ((self.vip_port.raw() as u64) << 16)
            | ((self.backend_port.raw() as u64) << 32)
            | ((self.protocol as u64) << 48)
            | ((self.kind as u64) << 56);
        let rest = self.verdict as u64
            | ((self.state.bits() as u64) << 8)
            | ((self.pad as u64) << 16)
            | ((self.interface as u64) << 32);
        mix([
            self.sequence,
            self.time,
            client,
            client_end,
            vip,
            vip_end,
            backend,
            backend_end,
            self.cookie,
            ports,
            rest,
        ])
    }

    /// Whether it was read as it was written.
    #[inline(always)]
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.sequence != 0 && self.seal == self.seal_for()
    }

    /// Which element of `events` has the event of this number.
    #[inline(always)]
    #[must_use]
    pub const fn element(sequence: u64) -> u32 {
        1 + (sequence as u32 & (EVENTS - 1))
    }
}

/// Element 0 of `events`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Events so far.
    pub count: u64,
    /// By kind, until when someone listens: a [`lease`]. It runs out by itself if the listener dies.
    pub leases: [u64; EventKind::ALL.len()],
    pub pad: [u64; 5],
}

/// Bit that tells a lease from none at all.
const LEASED: u64 = 1 << 32;

/// A lease until this tick.
#[must_use]
pub const fn lease(until: u32) -> u64 {
    LEASED | until as u64
}

/// Whether it is not over. The tick wraps: what is more than half of its range away is past.
#[inline(always)]
#[must_use]
pub const fn is_leased(lease: u64, now: u32) -> bool {
    let left = (lease as u32).wrapping_sub(now);
    lease != 0 && left != 0 && left <= u32::MAX / 2
}

const _: () = assert!(size_of::<Event>() == 96 && size_of::<Switch>() == size_of::<Event>());
const _: () = assert!(EVENTS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Action;
    use core::net::{IpAddr, Ipv4Addr};

    #[test]
    fn a_seal_fits_what_was_written_and_nothing_else() {
        let address = |last| Address::from(IpAddr::V4(Ipv4Addr::new(10, 12, 0, last)));
        let mut event =
            Event { sequence: 7, time: 9, client: address(9), vip: address(1), kind: 2, ..Event::EMPTY };
        event.seal = event.seal_for();
        assert!(event.is_whole());
        for torn in [
            Event { sequence: 8, ..event },
            Event { time: 10, ..event },
            Event { client: address(8), ..event },
            Event { vip: address(2), ..event },
            Event { backend: address(2), ..event },
            Event { cookie: 1, ..event },
            Event { client_port: Port::new(1), ..event },
            Event { vip_port: Port::new(1), ..event },
            Event { backend_port: Port::new(1), ..event },
            Event { protocol: 6, ..event },
            Event { kind: 3, ..event },
            Event { verdict: 1, ..event },
            Event { state: FlowState::RESET, ..event },
            Event { interface: 3, ..event },
            Event { seal: 0, ..event },
        ] {
            assert!(!torn.is_whole(), "{torn:?}");
        }
        assert!(!Event { seal: Event::EMPTY.seal_for(), ..Event::EMPTY }.is_whole(), "never written");
    }

    #[test]
    fn a_lease_runs_out_also_where_the_tick_wraps() {
        for now in [0, 5, u32::MAX - 2, u32::MAX] {
            assert!(!is_leased(0, now), "nobody has ever listened");
            for (ahead, holds) in [(1, true), (20, true), (0, false), (u32::MAX, false)] {
                assert_eq!(is_leased(lease(now.wrapping_add(ahead)), now), holds, "{now} + {ahead}");
            }
        }
    }

    #[test]
    fn kinds_have_their_numbers_and_verdicts_the_kind_of_what_becomes_of_the_packet() {
        for (index, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, EventKind::from_number(kind as u8)), (index, Some(kind)));
        }
        assert_eq!(EventKind::from_number(6), None);
        for verdict in Verdict::ALL {
            match EventKind::of_opening(verdict) {
                Some(EventKind::Passed | EventKind::New) => {
                    assert_eq!(verdict.action(), Action::Next, "{verdict:?}");
                }
                Some(EventKind::Dropped) => assert_eq!(verdict.action(), Action::Drop, "{verdict:?}"),
                Some(EventKind::Rejected | EventKind::Reply | EventKind::Closed) | None => {}
            }
        }
    }
}
