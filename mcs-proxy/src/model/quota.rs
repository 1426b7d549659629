//! How much the other clusters may bring: whoever can write slices into one cluster must not fill the nodes of all.

use super::{EndpointSlice, NamespacedName, ObjectKind, ObjectRef, Problem, Settings, SourceCluster};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The most imported endpoints. Local ones are not limited here: the cluster trusts its own controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// That one cluster brings to one Service.
    pub per_service: usize,
    /// That one cluster brings in all, unless the settings say `max-endpoints` for it.
    pub per_cluster: usize,
    /// Of all clusters on this node.
    pub per_node: usize,
}

impl Limits {
    pub const DEFAULT: Self = Self { per_service: 10_000, per_cluster: 100_000, per_node: 250_000 };
}

/// Keeps count of what was let in, and what waits for room.
///
/// Past a limit nothing is added: of a slice that has grown too large, the endpoints that were let in before stay, with
/// their new conditions, and those that it no longer lists go. What another cluster has brought is never touched.
#[derive(Debug)]
pub(super) struct Quotas {
    limits: Limits,
    by_cluster: BTreeMap<SourceCluster, usize>,
    total: usize,
    /// Slices as they were told, that were not let in as a whole.
    waiting: BTreeMap<NamespacedName, EndpointSlice>,
    waiting_endpoints: usize,
}

/// What a slice may bring now, and which limit says so.
#[derive(Clone, Copy)]
struct Room {
    endpoints: usize,
    limit: usize,
    whose: &'static str,
    flag: &'static str,
}

impl Quotas {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, by_cluster: BTreeMap::new(), total: 0, waiting: BTreeMap::new(), waiting_endpoints: 0 }
    }

    /// Cuts `slice` down to what may be let in and counts it. `former` is what stands in its place now and is
    /// discounted; `siblings` are the endpoints of the Service's other slices from the same cluster.
    pub(super) fn admit(
        &mut self,
        slice: &mut EndpointSlice,
        former: Option<&EndpointSlice>,
        siblings: usize,
        settings: &Settings,
    ) -> Option<Problem> {
        self.forget(&slice.key);
        if let Some(former) = former {
            self.discount(former);
        }
        if slice.source == SourceCluster::Local {
            return None;
        }
        let room = self.room(&slice.source, siblings, settings);
        let told = slice.endpoints.len();
        if told > room.endpoints {
            let whole = slice.clone();
            let known: BTreeSet<IpAddr> = former
                .filter(|former| former.source == slice.source)
                .into_iter()
                .flat_map(|former| former.endpoints.iter().map(|endpoint| endpoint.address))
                .collect();
            slice.endpoints.retain(|endpoint| known.contains(&endpoint.address));
            slice.endpoints.truncate(room.endpoints);
            self.wait(whole);
        }
        let kept = slice.endpoints.len();
        *self.by_cluster.entry(slice.source.clone()).or_default() += kept;
        self.total += kept;
        (told > room.endpoints).then(|| refused(slice, told, room))
    }

    /// A slice is gone, or no longer what it was.
    pub(super) fn release(&mut self, slice: &EndpointSlice) {
        self.forget(&slice.key);
        self.discount(slice);
    }

    /// The slices that wait, as they were told, and that may fit now; they no longer wait. `siblings` as in
    /// [`Self::admit`], `present`: what a slice has let in already.
    pub(super) fn take_fitting(
        &mut self,
        settings: &Settings,
        siblings: impl Fn(&EndpointSlice) -> usize,
        present: impl Fn(&EndpointSlice) -> usize,
    ) -> Vec<EndpointSlice> {
        let fits = |slice: &EndpointSlice| {
            let room = self.room(&slice.source, siblings(slice), settings);
            slice.endpoints.len() <= room.endpoints + present(slice)
        };
        let keys: Vec<_> =
            self.waiting.values().filter(|slice| fits(slice)).map(|slice| slice.key.clone()).collect();
        keys.iter().filter_map(|key| self.forget(key)).collect()
    }

    fn room(&self, source: &SourceCluster, siblings: usize, settings: &Settings) -> Room {
        let of_cluster = self.by_cluster.get(source).copied().unwrap_or_default();
        let declared = match source {
            SourceCluster::Remote(name) => settings.clusters.get(&**name).and_then(|own| own.max_endpoints),
            SourceCluster::Local | SourceCluster::Unknown => None,
        };
        let Limits { per_service, per_cluster, per_node } = self.limits;
        let (per_cluster, flag) = match declared {
            Some(declared) => (declared as usize, "max-endpoints of this cluster in the settings"),
            None => (per_cluster, "--max-cluster-endpoints"),
        };
        let room = |limit: usize, used: usize, whose, flag| Room {
            endpoints: limit.saturating_sub(used),
            limit,
            whose,
            flag,
        };
        let for_service =
            room(per_service, siblings, "one cluster's for one Service", "--max-service-endpoints");
        let for_cluster = room(per_cluster, of_cluster, "this cluster's", flag);
        let for_node = room(per_node, self.total, "all clusters'", "--max-imported-endpoints");
        [for_cluster, for_node]
            .into_iter()
            .fold(for_service, |least, room| if room.endpoints < least.endpoints { room } else { least })
    }

    fn discount(&mut self, slice: &EndpointSlice) {
        if slice.source == SourceCluster::Local {
            return;
        }
        let count = slice.endpoints.len();
        self.total -= count;
        if let Some(of_cluster) = self.by_cluster.get_mut(&slice.source) {
            *of_cluster -= count;
            if *of_cluster == 0 {
                self.by_cluster.remove(&slice.source);
            }
        }
    }

    /// What waits is bounded as well: beyond that, a slice is only let in with its next change.
    fn wait(&mut self, slice: EndpointSlice) {
        if self.waiting_endpoints + slice.endpoints.len() <= self.limits.per_node {
            self.waiting_endpoints += slice.endpoints.len();
            self.waiting.insert(slice.key.clone(), slice);
        }
    }

    fn forget(&mut self, key: &NamespacedName) -> Option<EndpointSlice> {
        let slice = self.waiting.remove(key)?;
        self.waiting_endpoints -= slice.endpoints.len();
        Some(slice)
    }
}

fn refused(slice: &EndpointSlice, told: usize, Room { limit, whose, flag, .. }: Room) -> Problem {
    let kept = slice.endpoints.len();
    Problem {
        object: ObjectRef {
            kind: ObjectKind::EndpointSlice,
            namespace: slice.key.namespace.clone(),
            name: slice.key.name.clone(),
        },
        field: "endpoints".into(),
        message: format!(
            "{told} endpoints from cluster {} are more than the limit leaves room for: {limit} are {whose}",
            slice.source
        ),
        remedy: format!("{kept} that were here before stay, no others; see to that cluster, or raise {flag}"),
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
