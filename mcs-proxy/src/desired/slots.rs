//! From endpoints that take new flows to the turn of the wheel.

use super::{
    eligibility::Candidate,
    wheel::{Group, turn},
};
use crate::model::{SourceCluster, Tier};
use std::{collections::BTreeMap, net::SocketAddr};

/// Puts the endpoints in the order of display: this cluster's first, then by cluster, then by address. The order is a
/// function of what is there, so that nodes agree and a resync changes nothing.
pub(super) fn put_in_order(candidates: &mut [Candidate<'_>]) {
    candidates.sort_by(|a, b| {
        let rank = |candidate: &Candidate<'_>| (candidate.address, candidate.verdict);
        (&a.slice.source, rank(a), &a.slice.key.name).cmp(&(&b.slice.source, rank(b), &b.slice.key.name))
    });
}

/// Where new flows go, in the order of the wheel, and how many slots each endpoint has of it.
///
/// `weighted`: the tier whose clusters share by number (one that says none has 1); otherwise all endpoints count
/// alike. Clusters take turns, and within a cluster its endpoints.
pub(super) fn slots(candidates: &mut [Candidate<'_>], weighted: Option<&Tier>) -> Vec<SocketAddr> {
    let mut clusters: BTreeMap<(usize, &SourceCluster), Vec<usize>> = BTreeMap::new();
    for (i, candidate) in candidates.iter().enumerate() {
        if candidate.verdict.takes_flows() {
            let member = candidate.place.filter(|_| weighted.is_some()).map_or(0, |place| place.member);
            clusters.entry((member, &candidate.slice.source)).or_default().push(i);
        }
    }
    // The clusters of a member, all alike; more than one only for `others` and without weights.
    let mut members: BTreeMap<usize, Vec<Group<usize>>> = BTreeMap::new();
    for ((member, _), endpoints) in clusters {
        let group = Group { share: endpoints.len() as u64, members: endpoints };
        members.entry(member).or_default().push(group);
    }
    let shares = weighted.map(Tier::members).unwrap_or_default();
    let groups: Vec<Group<usize>> = members
        .into_iter()
        .map(|(member, clusters)| {
            let members = turn(&clusters);
            let share = match weighted {
                Some(_) => shares.get(member).and_then(|member| member.share).unwrap_or(1).into(),
                None => members.len() as u64,
            };
            Group { share, members }
        })
        .collect();
    let order = turn(&groups);
    for &i in &order {
        candidates[i].slots += 1;
    }
    order.into_iter().map(|i| candidates[i].address).collect()
}
