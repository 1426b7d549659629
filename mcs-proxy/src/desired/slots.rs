use super::eligibility::Candidate;
use std::net::SocketAddr;

/// Puts the endpoints in the order of the wheel and of display: this cluster's first, then by cluster, then by
/// address. The order is a function of what is there, so that nodes agree and a resync changes nothing.
pub(super) fn put_in_order(candidates: &mut [Candidate<'_>]) {
    candidates.sort_by(|a, b| {
        let rank = |candidate: &Candidate<'_>| (candidate.address, candidate.verdict);
        (&a.slice.source, rank(a), &a.slice.key.name).cmp(&(&b.slice.source, rank(b), &b.slice.key.name))
    });
}

/// Where new flows go, each endpoint once.
pub(super) fn slots(candidates: &[Candidate<'_>]) -> Vec<SocketAddr> {
    candidates
        .iter()
        .filter(|candidate| candidate.verdict.takes_flows())
        .map(|candidate| candidate.address)
        .collect()
}
