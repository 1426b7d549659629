//! What is near: this node by internalTrafficPolicy, this node's or zone's share of the endpoints by hints.
//!
//! nodeName, zone and hints are names of the endpoint's own cluster. In an import they mean nothing here, whatever
//! they are equal to, and they do not count. Zones of a cluster that the settings call `zones: shared` do.

use super::{EndpointVerdict, Here, eligibility::Candidate};
use crate::model::{Hints, Settings, SourceCluster, Zones};
use std::collections::BTreeMap;

/// `internalTrafficPolicy: Local`: only this cluster's pods on this node are left in question.
pub(super) fn keep_to_this_node(candidates: &mut [Candidate<'_>], here: Here<'_>) {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
        let node = candidate.endpoint.node_name();
        if !candidate.is_local() || node != Some(here.node) {
            // Whose node it is in another cluster does not matter; of ours nobody can tell.
            let unnamed = here.node.is_empty() && candidate.is_local();
            candidate.verdict =
                if unnamed { EndpointVerdict::NodeUnnamed } else { EndpointVerdict::OtherNode };
        }
    }
}

/// Keeps to what this cluster's hints mean for this node, as kube-proxy does (`topologyModeFromHints`): hints for nodes
/// before those for zones, and either only if every ready endpoint has them and one of them is for us. It looks at
/// the cluster's own endpoints alone, so that an import without hints leaves ours in force.
///
/// A cluster with `zones: shared` is looked at in the same way, by itself and for zones alone: if its hints apply, its
/// endpoints in this zone stand beside our own. Without, it is an import as any other. Hints for nodes are nearer than a
/// zone can be, and leave it waiting.
///
/// `imports_wait`: whether imports take new flows only where no hint applies. With tiers, those decide about clusters.
pub(super) fn follow_hints(
    candidates: &mut [Candidate<'_>],
    here: Here<'_>,
    settings: &Settings,
    imports_wait: bool,
) {
    let (node, zone) = (Some(Hint::Node(here.node)), here.zone.map(Hint::Zone));
    let own = [node, zone].into_iter().flatten().find(|hint| hint.applies(candidates, &SourceCluster::Local));
    let beside_ours = match own {
        Some(Hint::Node(_)) => BTreeMap::new(),
        Some(Hint::Zone(_)) | None => shared_zones(candidates, settings, zone),
    };
    if own.is_none() && beside_ours.is_empty() {
        return;
    }
    for candidate in candidates.iter_mut().filter(|candidate| candidate.is_in_question()) {
        let source = &candidate.slice.source;
        let hint = if candidate.is_local() { own } else { beside_ours.get(source).copied() };
        match hint {
            Some(hint) if !hint.is_given_to(candidate) => candidate.verdict = hint.verdict(),
            None if imports_wait && own.is_some() && !candidate.is_local() => {
                candidate.verdict = EndpointVerdict::LocalFirst;
            }
            Some(_) | None => {}
        }
    }
}

/// The clusters with `zones: shared` whose hints for zones apply here.
fn shared_zones<'a>(
    candidates: &[Candidate<'_>],
    settings: &Settings,
    zone: Option<Hint<'a>>,
) -> BTreeMap<SourceCluster, Hint<'a>> {
    let shared = settings.clusters.iter().filter(|(_, cluster)| cluster.zones == Zones::Shared);
    let sources = shared.map(|(name, _)| SourceCluster::Remote(name.as_str().into()));
    let applies = |source| Some(source).zip(zone).filter(|(source, hint)| hint.applies(candidates, source));
    sources.filter_map(applies).collect()
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
        let names = candidate.endpoint.hints().map(|hints| self.names(hints)).unwrap_or_default();
        names.iter().any(|name| name == own)
    }

    /// Whether every endpoint in question of a cluster has such hints, and one of them is for us.
    fn applies(self, candidates: &[Candidate<'_>], source: &SourceCluster) -> bool {
        let ready = || {
            candidates
                .iter()
                .filter(|candidate| candidate.is_in_question() && candidate.slice.source == *source)
        };
        ready().all(|candidate| self.is_on(candidate)) && ready().any(|candidate| self.is_given_to(candidate))
    }

    fn is_on(self, candidate: &Candidate<'_>) -> bool {
        candidate.endpoint.hints().is_some_and(|hints| !self.names(hints).is_empty())
    }

    const fn verdict(self) -> EndpointVerdict {
        match self {
            Self::Node(_) => EndpointVerdict::OtherNode,
            Self::Zone(_) => EndpointVerdict::OtherZone,
        }
    }
}

#[cfg(test)]
#[path = "locality_tests.rs"]
mod tests;
