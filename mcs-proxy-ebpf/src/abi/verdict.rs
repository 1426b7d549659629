//! What the programs decide about a packet. Each verdict has one action and one counter (`verdicts`, by number).

/// Why a packet went on as it was, was translated, or was dropped.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nothing of ours concerns the address.
    NotOurs = 0,
    /// Neither IPv4 nor IPv6: ARP, VLAN and the like.
    NotIp = 1,
    /// Headers that are cut short or contradict themselves.
    Malformed = 2,
    /// IP of a kind that is not translated: source routes, IPsec, too many extension headers, other transports.
    Unsupported = 3,
    /// From a pod: the address shares a bit with a VIP of ours, or another port of it was called.
    NoService = 4,
    /// From a pod: a TCP packet to a frontend of ours, of a connection that is not. What is beneath us has it.
    UnknownConnection = 5,
    /// From a pod: the frontend has no backend to offer, or the VIP is ours with every port and has none such.
    NoBackend = 6,
    /// From a pod: every wire tuple that was tried belongs to another flow, or to a connection of the pod's that
    /// calls the backend directly. Dropped: beneath us it would be the same tuple, and its answers the other's.
    TupleTaken = 7,
    /// From a pod: the flow maps are full.
    FlowsFull = 8,
    /// From a pod: what the maps say makes no sense, such as an extent out of range.
    Corrupt = 9,
    /// From a pod: a new flow, translated.
    NewFlow = 10,
    /// From a pod: a known flow, translated.
    Forwarded = 11,
    /// To a pod: the address shares a bit with a backend of ours, or the backend speaks for itself.
    NoFlow = 12,
    /// To a pod: an answer to a flow that another interface's pod opened.
    OtherInterface = 13,
    /// To a pod: an answer, translated.
    Replied = 14,
    /// The kernel refused to change the packet, which may be half changed: dropped.
    RewriteFailed = 15,
    /// Counted beside the packet's own verdict: a confirmed flow stays transient, because the established ones have
    /// no room, or none left for its interface.
    NotPromoted = 16,
    /// From a pod: the frontend has no backend to offer, and the pod was told so, by a RST or an ICMP error.
    Rejected = 17,
    /// The same, but its interface has had its share of answers for now: dropped.
    RejectLimited = 18,
    /// From a pod: an echo request to a VIP of ours, answered.
    EchoReplied = 19,
    /// Either way: an ICMP error about a translated packet, translated.
    IcmpTranslated = 20,
    /// To a pod: an ICMP redirect about a packet that we have translated. Dropped: the pod knows the VIP only.
    HostRedirect = 21,
    /// From a pod: it calls itself through a VIP. Translated, and back to it.
    HairpinForwarded = 22,
    /// From a pod: its answer to itself. Translated, and back to it.
    HairpinReplied = 23,
    /// From a pod: a SYN straight to a backend, by a wire tuple that an open flow of ours has. Dropped: the answers
    /// could not be told apart.
    DirectTaken = 24,
    /// From a pod: a packet of no flow; but [`Stage::Open`](super::Stage::Open), which would go on with it, is not there.
    OpenMissing = 25,
    /// From a pod: a packet to itself; but [`Stage::Hairpin`](super::Stage::Hairpin), which would go on with it, is not there.
    HairpinMissing = 26,
    /// A process connected, or sent a first datagram, to a VIP of ours, and its socket now speaks to a backend.
    Connected = 27,
    /// The same, but the frontend has no backend to offer: the call failed with ECONNREFUSED.
    ConnectRefused = 28,
    /// Either way: a later fragment of a datagram whose first one was not translated, or came after it.
    LoneFragment = 29,
    /// Either way: a packet with more than a plain header; but [`Stage::Odd`](super::Stage::Odd) or
    /// [`Stage::OddBack`](super::Stage::OddBack), which would go on with it, is not there.
    OddMissing = 30,
    /// From a pod: a packet for another pod of this node, past the host; but [`Stage::Peer`](super::Stage::Peer), which
    /// would hand it over, is not there.
    PeerMissing = 31,
    /// From a pod: translated, and straight into another pod of this node.
    Redirected = 32,
    /// From a pod, or a process: a new flow to a frontend of ours; but for `--orphan-timeout` no daemon has looked after the maps.
    Orphaned = 33,
    /// From a pod: of a connection that the daemon has ended. The pod was told so, by a RST.
    Ended = 34,
}

/// How many verdicts there are: the size of the map.
pub const VERDICTS: u32 = 35;

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On to the next program, changed or not.
    Next,
    Drop,
    /// Out of the interface it came in by, to the pod that sent what it answers.
    Return,
    /// Into another pod, which is said by the program itself: only it knows which.
    Redirect,
}

impl Verdict {
    pub const ALL: [Self; VERDICTS as usize] = [
        Self::NotOurs,
        Self::NotIp,
        Self::Malformed,
        Self::Unsupported,
        Self::NoService,
        Self::UnknownConnection,
        Self::NoBackend,
        Self::TupleTaken,
        Self::FlowsFull,
        Self::Corrupt,
        Self::NewFlow,
        Self::Forwarded,
        Self::NoFlow,
        Self::OtherInterface,
        Self::Replied,
        Self::RewriteFailed,
        Self::NotPromoted,
        Self::Rejected,
        Self::RejectLimited,
        Self::EchoReplied,
        Self::IcmpTranslated,
        Self::HostRedirect,
        Self::HairpinForwarded,
        Self::HairpinReplied,
        Self::DirectTaken,
        Self::OpenMissing,
        Self::HairpinMissing,
        Self::Connected,
        Self::ConnectRefused,
        Self::LoneFragment,
        Self::OddMissing,
        Self::PeerMissing,
        Self::Redirected,
        Self::Orphaned,
        Self::Ended,
    ];

    #[inline(always)]
    pub const fn action(self) -> Action {
        match self {
            Self::NotOurs
            | Self::NotIp
            | Self::Malformed
            | Self::Unsupported
            | Self::NoService
            | Self::UnknownConnection
            | Self::NoBackend
            | Self::OpenMissing
            | Self::HairpinMissing
            | Self::LoneFragment
            | Self::OddMissing
            | Self::PeerMissing
            | Self::NotPromoted
            | Self::FlowsFull
            | Self::Corrupt
            | Self::NewFlow
            | Self::Forwarded
            | Self::NoFlow
            | Self::OtherInterface
            | Self::Replied
            | Self::IcmpTranslated
            | Self::Connected
            | Self::ConnectRefused
            | Self::Orphaned => Action::Next,
            Self::TupleTaken
            | Self::DirectTaken
            | Self::RewriteFailed
            | Self::RejectLimited
            | Self::HostRedirect => Action::Drop,
            Self::Rejected
            | Self::EchoReplied
            | Self::HairpinForwarded
            | Self::HairpinReplied
            | Self::Ended => Action::Return,
            Self::Redirected => Action::Redirect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_a_counter_of_its_own() {
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, index);
        }
    }
}
