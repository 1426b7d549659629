//! The programs' verdicts and events, in words.

use mcs_proxy_ebpf::abi::{EventKind, Verdict};

/// One word, for filters and JSON.
#[must_use]
pub const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NotOurs => "not-ours",
        Verdict::NotIp => "not-ip",
        Verdict::Malformed => "malformed",
        Verdict::Unsupported => "unsupported",
        Verdict::NoService => "no-service",
        Verdict::UnknownConnection => "unknown-connection",
        Verdict::NoBackend => "no-backend",
        Verdict::TupleTaken => "tuple-taken",
        Verdict::FlowsFull => "flows-full",
        Verdict::Corrupt => "corrupt",
        Verdict::NewFlow => "new-flow",
        Verdict::Forwarded => "forwarded",
        Verdict::NoFlow => "no-flow",
        Verdict::OtherInterface => "other-interface",
        Verdict::Replied => "replied",
        Verdict::RewriteFailed => "rewrite-failed",
        Verdict::NotPromoted => "not-promoted",
        Verdict::Rejected => "rejected",
        Verdict::RejectLimited => "reject-limited",
        Verdict::EchoReplied => "echo-replied",
        Verdict::IcmpTranslated => "icmp-translated",
        Verdict::HostRedirect => "host-redirect",
        Verdict::HairpinForwarded => "hairpin-forwarded",
        Verdict::HairpinReplied => "hairpin-replied",
        Verdict::DirectTaken => "direct-taken",
        Verdict::OpenMissing => "open-missing",
        Verdict::HairpinMissing => "hairpin-missing",
        Verdict::Connected => "connected",
        Verdict::ConnectRefused => "connect-refused",
        Verdict::LoneFragment => "lone-fragment",
        Verdict::OddMissing => "odd-missing",
        Verdict::PeerMissing => "peer-missing",
        Verdict::Redirected => "redirected",
        Verdict::Orphaned => "orphaned",
        Verdict::Ended => "ended",
    }
}

/// Why a packet was not translated, for people; empty where the name says all.
#[must_use]
pub const fn verdict_reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoService => "no frontend of ours has this port, or protocol, of the address",
        Verdict::UnknownConnection => "of a connection that is not ours: what is beneath us has it",
        Verdict::NoBackend => "no endpoint, and no room for an answer",
        Verdict::TupleTaken => "every tuple on the wire that was tried is another conversation's",
        Verdict::FlowsFull => "the flow maps are full",
        Verdict::Corrupt => "what the maps say makes no sense",
        Verdict::Orphaned => "no daemon has looked after the maps for --orphan-timeout",
        Verdict::RewriteFailed => "the kernel would not change the packet",
        Verdict::Rejected | Verdict::ConnectRefused => "no endpoint",
        Verdict::RejectLimited => "no endpoint, and its interface has had its share of answers",
        Verdict::DirectTaken => "an open flow by a VIP has the same tuple on the wire",
        Verdict::NotOurs
        | Verdict::NotIp
        | Verdict::Malformed
        | Verdict::Unsupported
        | Verdict::NewFlow
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
        | Verdict::HairpinMissing
        | Verdict::Connected
        | Verdict::LoneFragment
        | Verdict::OddMissing
        | Verdict::PeerMissing
        | Verdict::Redirected
        | Verdict::Ended => "",
    }
}

#[must_use]
pub const fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::New => "new",
        EventKind::Reply => "reply",
        EventKind::Closed => "closed",
        EventKind::Rejected => "rejected",
        EventKind::Dropped => "dropped",
        EventKind::Passed => "passed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_verdict_has_a_name_of_its_own_and_those_that_are_told_of_a_reason() {
        let names: BTreeSet<&str> = Verdict::ALL.into_iter().map(verdict_name).collect();
        assert_eq!(names.len(), Verdict::ALL.len());
        for verdict in Verdict::ALL {
            let needs_one = matches!(
                EventKind::of_opening(verdict),
                Some(EventKind::Passed | EventKind::Dropped | EventKind::Rejected)
            );
            assert_eq!(!verdict_reason(verdict).is_empty(), needs_one, "{verdict:?}");
        }
    }
}
