//! Which tier of clusters takes the new flows (`mcs-proxy.io/clusters`, `mcs-proxy.io/min-ready`).

use super::{
    EndpointVerdict,
    eligibility::{Candidate, Place},
};
use crate::model::{ClusterSelector, MinReady, SourceCluster, Tier, Tiers};
use std::time::{Duration, Instant};

/// What is remembered of a frontend's tiers, so that new flows do not go to and fro with every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    tiers: Tiers,
    active: Active,
    /// Whether anything was eligible.
    served: bool,
    /// The best that was active since these tiers hold; what is better still is news and taken at once.
    best_ever: Active,
    /// Since when a better tier than the active one could take the flows, without a break.
    better_since: Option<Instant>,
}

/// Who takes the new flows; in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Active {
    Tier(usize),
    /// No tier has enough: all of them together.
    Pooled,
}

impl Standing {
    pub(super) const fn active(&self) -> Active {
        self.active
    }

    /// When a better tier has held for long enough.
    pub(super) fn due(&self, hold: Duration) -> Option<Instant> {
        self.better_since.map(|since| since + hold)
    }
}

/// Gives every candidate its place; those of clusters that no tier has are out of question.
///
/// This cluster's endpoints are found by `local` and by its name, so that one annotation serves all clusters;
/// of the two, what is written first counts.
pub(super) fn assign(candidates: &mut [Candidate<'_>], tiers: &Tiers, cluster_name: &str) {
    for candidate in candidates {
        candidate.place = place(&candidate.slice.source, tiers, cluster_name);
        if candidate.is_in_question() && candidate.place.is_none() {
            candidate.verdict = EndpointVerdict::InNoTier;
        }
    }
}

/// A cluster without a name cannot be named.
fn place(source: &SourceCluster, tiers: &Tiers, cluster_name: &str) -> Option<Place> {
    let find = |is_it: &dyn Fn(&ClusterSelector) -> bool| {
        let mut members = tiers.as_slice().iter().enumerate().flat_map(|(tier, members)| {
            members.members().iter().enumerate().map(move |(member, it)| (Place { tier, member }, it))
        });
        members.find(|(_, it)| is_it(&it.cluster)).map(|(place, _)| place)
    };
    let named = match source {
        SourceCluster::Local => find(&|cluster| match cluster {
            ClusterSelector::Local => true,
            ClusterSelector::Named(name) => name == cluster_name,
            ClusterSelector::Others => false,
        }),
        SourceCluster::Remote(source) => {
            find(&|cluster| matches!(cluster, ClusterSelector::Named(name) if **name == **source))
        }
        SourceCluster::Unknown => None,
    };
    named.or_else(|| find(&|cluster| *cluster == ClusterSelector::Others))
}

/// Which tier takes the new flows now: the first with enough eligible endpoints. Spilling over happens at once; what
/// was left for want of endpoints is returned to once it has had enough for `hold` without a break.
///
/// After readiness, before hints: those choose within a cluster, and say nothing of how many it has.
pub(super) fn settle(
    candidates: &[Candidate<'_>],
    tiers: &Tiers,
    min_ready: MinReady,
    previous: Option<&Standing>,
    now: Instant,
    hold: Duration,
) -> Standing {
    let eligible = |tier: usize| {
        candidates
            .iter()
            .filter(|candidate| {
                candidate.verdict.takes_flows() && candidate.place.is_some_and(|p| p.tier == tier)
            })
            .count()
    };
    let listed = |tier: usize| {
        let counts = |candidate: &&Candidate<'_>| {
            !matches!(candidate.verdict, EndpointVerdict::Rejected(_) | EndpointVerdict::Duplicate)
                && !candidate.endpoint.terminating
                && candidate.place.is_some_and(|place| place.tier == tier)
        };
        candidates.iter().filter(counts).count()
    };
    let has_enough = |tier: usize| {
        let eligible = eligible(tier);
        eligible > 0 && eligible >= min_ready.of(listed(tier))
    };
    let best =
        (0..tiers.as_slice().len()).find(|&tier| has_enough(tier)).map_or(Active::Pooled, Active::Tier);
    let served = candidates.iter().any(|candidate| candidate.verdict.takes_flows());
    let standing = |active, best_ever, better_since| Standing {
        tiers: tiers.clone(),
        active,
        served,
        best_ever,
        better_since,
    };
    let Some(previous) = previous.filter(|previous| previous.tiers == *tiers) else {
        return standing(best, best, None);
    };
    let active = previous.active;
    let can_go_on = match active {
        Active::Tier(tier) => has_enough(tier),
        Active::Pooled => previous.served && served,
    };
    if best >= active || !can_go_on || best < previous.best_ever {
        return standing(best, previous.best_ever.min(best), None);
    }
    let since = previous.better_since.unwrap_or(now);
    if now.duration_since(since) >= hold {
        standing(best, previous.best_ever, None)
    } else {
        standing(active, previous.best_ever, Some(since))
    }
}

/// Leaves the eligible endpoints of the active tier only.
pub(super) fn apply(candidates: &mut [Candidate<'_>], active: Active) {
    let Active::Tier(active) = active else { return };
    for candidate in candidates.iter_mut().filter(|candidate| candidate.verdict.takes_flows()) {
        if candidate.place.is_none_or(|place| place.tier != active) {
            candidate.verdict = EndpointVerdict::OtherTier;
        }
    }
}

/// The tier whose clusters share by number, if the active one is such.
pub(super) fn weighted(tiers: &Tiers, active: Active) -> Option<&Tier> {
    match active {
        Active::Tier(tier) => tiers.as_slice().get(tier).filter(|tier| tier.is_weighted()),
        Active::Pooled => None,
    }
}

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tests;
