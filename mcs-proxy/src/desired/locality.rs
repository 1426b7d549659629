//! What is near: this node by internalTrafficPolicy, this node's or zone's share of the endpoints by hints.
//!
//! nodeName, zone and hints are names of the endpoint's own cluster. In an import they mean nothing here, whatever
//! they are equal to, and they never count.

use super::{EndpointVerdict, Here, eligibility::Candidate};
use crate::model::Hints;

/// `internalTrafficPolicy: Local`: only this cluster's pods on this node are left in question.
pub(super) fn keep_to_this_node(candidates: &mut [Candidate<'_>], here: Here<'_>) {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
        let node = candidate.endpoint.node_name.as_deref();
        if !candidate.is_local() || node != Some(here.node) {
            candidate.verdict = EndpointVerdict::OtherNode;
        }
    }
}

/// Keeps to what this cluster's hints mean for this node, as kube-proxy does (`topologyModeFromHints`): hints for nodes
/// before those for zones, and either only if every ready endpoint has them and one of them is for us. It looks at
/// the cluster's own endpoints alone, so that an import without hints leaves ours in force.
///
/// `imports_wait`: whether imports take new flows only where no hint applies. With tiers, those decide about clusters.
pub(super) fn follow_hints(candidates: &mut [Candidate<'_>], here: Here<'_>, imports_wait: bool) {
    let Some(hint) = hint_that_applies(candidates, here) else { return };
    for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
        if candidate.is_local() {
            if !hint.is_given_to(candidate) {
                candidate.verdict = hint.verdict();
            }
        } else if imports_wait {
            candidate.verdict = EndpointVerdict::LocalFirst;
        }
    }
}

/// A hint's kind and our own name of that kind.
#[derive(Clone, Copy)]
enum Hint<'a> {
    Node(&'a str),
    Zone(&'a str),
}

impl Hint<'_> {
    fn names(self, hints: &Hints) -> &[String] {
        match self {
            Self::Node(_) => &hints.for_nodes,
            Self::Zone(_) => &hints.for_zones,
        }
    }

    fn is_given_to(self, candidate: &Candidate<'_>) -> bool {
        let (Self::Node(own) | Self::Zone(own)) = self;
        let names = candidate.endpoint.hints.as_deref().map(|hints| self.names(hints)).unwrap_or_default();
        names.iter().any(|name| name == own)
    }

    fn is_on(self, candidate: &Candidate<'_>) -> bool {
        candidate.endpoint.hints.as_deref().is_some_and(|hints| !self.names(hints).is_empty())
    }

    const fn verdict(self) -> EndpointVerdict {
        match self {
            Self::Node(_) => EndpointVerdict::OtherNode,
            Self::Zone(_) => EndpointVerdict::OtherZone,
        }
    }
}

fn hint_that_applies<'a>(candidates: &[Candidate<'_>], here: Here<'a>) -> Option<Hint<'a>> {
    let node = Some(Hint::Node(here.node));
    let zone = here.zone.map(Hint::Zone);
    let ready = || candidates.iter().filter(|candidate| candidate.is_in_question() && candidate.is_local());
    [node, zone].into_iter().flatten().find(|hint| {
        ready().all(|candidate| hint.is_on(candidate)) && ready().any(|candidate| hint.is_given_to(candidate))
    })
}

#[cfg(test)]
#[path = "locality_tests.rs"]
mod tests;
