//! What is looked at for answers, and what is told of those that do not.

use crate::{
    dataplane::{ended::Dropped, table::Table},
    desired::{Changes, Desired, Frontend, FrontendKey, Outages},
    health::{Endpoint, Findings, Watch},
    model::{
        ClusterState, EndpointSlice, Model, NamespacedName, ObjectKind, ObjectRef, OnFailure, Problem,
        SourceCluster,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

/// The [`Watch`], and what is [`Dropped`], kept in step with the maps.
#[derive(Debug, Default)]
pub(super) struct Watching {
    watch: Arc<Watch>,
    dropped: Arc<Dropped>,
}

impl Watching {
    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Another one, where it has changed.
    pub(super) fn dropped(&self) -> Arc<Dropped> {
        Arc::clone(&self.dropped)
    }

    /// The settings may have changed.
    pub(super) fn follow_settings(&mut self, model: &Model) {
        let clusters = &model.settings().clusters;
        let drained = clusters.iter().filter(|(_, cluster)| {
            cluster.on_failure == OnFailure::Drain && cluster.state == ClusterState::Active
        });
        let is_same =
            drained.clone().map(|(name, _)| &**name).eq(self.watch.drained_on_failure.iter().map(|it| &**it));
        if !is_same {
            Arc::make_mut(&mut self.watch).drained_on_failure =
                drained.map(|(name, _)| Arc::from(&**name)).collect();
        }
    }

    /// The maps have changed so.
    pub(super) fn follow(&mut self, changes: &Changes, table: &Table) {
        for (key, frontend) in &changes.upserts {
            self.put(key, frontend, table);
        }
        for key in &changes.removals {
            self.remove(key);
        }
    }

    /// The maps may hold anything of this.
    pub(super) fn follow_all(&mut self, desired: &Desired, table: &Table) {
        let known = self.watch.frontends.keys().chain(self.dropped.keys());
        let gone: BTreeSet<_> = known.filter(|key| !desired.contains_key(key)).copied().collect();
        gone.iter().for_each(|key| self.remove(key));
        for (key, frontend) in desired {
            self.put(key, frontend, table);
        }
    }

    fn put(&mut self, key: &FrontendKey, frontend: &Frontend, table: &Table) {
        if frontend.dropped.is_empty() {
            self.remove_dropped(key);
        } else if self.dropped.get(key) != Some(&frontend.dropped) {
            Arc::make_mut(&mut self.dropped).insert(*key, frontend.dropped.clone());
        }
        if frontend.watched.is_empty() {
            return self.remove_watched(key);
        }
        let backends: BTreeMap<SocketAddr, (u32, u32)> =
            table.backends(key).map(|(address, id, state)| (address, (id, state.generation()))).collect();
        let endpoints = frontend.watched.iter().map(|watched| Endpoint {
            address: watched.address,
            cluster: Arc::clone(&watched.cluster),
            in_slots: watched.in_slots,
            left_out: watched.left_out,
            backend: backends.get(&watched.address).copied(),
        });
        Arc::make_mut(&mut self.watch).frontends.insert(*key, endpoints.collect());
    }

    fn remove(&mut self, key: &FrontendKey) {
        self.remove_dropped(key);
        self.remove_watched(key);
    }

    fn remove_dropped(&mut self, key: &FrontendKey) {
        if self.dropped.contains_key(key) {
            Arc::make_mut(&mut self.dropped).remove(key);
        }
    }

    fn remove_watched(&mut self, key: &FrontendKey) {
        if self.watch.frontends.contains_key(key) {
            Arc::make_mut(&mut self.watch).frontends.remove(key);
        }
    }
}

/// The Services that what does not answer now, and did or did not before, may concern.
pub(super) fn affected(
    before: &Outages,
    now: &Outages,
    model: &Model,
    desired: &Desired,
) -> BTreeSet<NamespacedName> {
    let clusters: BTreeSet<&str> =
        before.clusters.symmetric_difference(&now.clusters).map(|(cluster, _)| &**cluster).collect();
    let differ = |one: &Outages, other: &Outages| -> BTreeSet<SocketAddr> {
        let is_new = |address: &&SocketAddr| one.endpoints.get(address) != other.endpoints.get(address);
        one.endpoints.keys().filter(is_new).copied().collect()
    };
    let endpoints = &differ(before, now) | &differ(now, before);
    let lists = |slice: &EndpointSlice| {
        let of_cluster = match &slice.source {
            // By whatever name this cluster goes: there are few Services more for it.
            SourceCluster::Local => !clusters.is_empty(),
            SourceCluster::Remote(name) => clusters.contains(&**name),
            SourceCluster::Unknown => false,
        };
        of_cluster || endpoints.iter().any(|it| slice.endpoints.iter().any(|own| own.address == it.ip()))
    };
    let mut affected = BTreeSet::new();
    if !clusters.is_empty() || !endpoints.is_empty() {
        affected = model.owners_of(lists);
    }
    let keys = before.probes.keys().chain(now.probes.keys());
    let probing = keys.filter(|key| before.probes.get(key) != now.probes.get(key));
    affected.extend(probing.filter_map(|key| desired.get(key)).map(|frontend| frontend.service.clone()));
    affected
}

/// What is to be told of what does not answer.
pub(super) fn problems(findings: &Findings, model: &Model) -> Vec<Problem> {
    let Findings { outages, kept } = findings;
    let mut problems = Vec::new();
    if let Some(settings) = model.settings_key() {
        let object = reference(ObjectKind::ConfigMap, settings);
        let told =
            outages.clusters.iter().map(|way| (way, DRAINED)).chain(kept.iter().map(|way| (way, KEPT)));
        problems.extend(told.map(|((cluster, family), remedy)| Problem {
            object: object.clone(),
            field: format!("{cluster} over {}", family.as_str()),
            message: "its new flows stay without an answer".into(),
            remedy: remedy.into(),
        }));
    }
    for (address, cluster) in &outages.endpoints {
        let lists = |slice: &&EndpointSlice| slice.endpoints.iter().any(|own| own.address == address.ip());
        if let Some(slice) = model.slices().find(lists) {
            problems.push(Problem {
                object: reference(ObjectKind::EndpointSlice, &slice.key),
                field: "(answers)".into(),
                message: format!("new flows to {address} in {cluster} stay without an answer"),
                remedy: "others take them, but for one from time to time, until one is answered; see to the pod, and \
                         what is on the way there"
                    .into(),
            });
        }
    }
    problems
}

const DRAINED: &str = "other clusters take them where they can, but for one from time to time, until one is answered; \
                       see to the cluster, and to the way there from the nodes that say so";
const KEPT: &str = "no other cluster could take them, so that it keeps them; see to the cluster, and to the way there \
                    from the nodes that say so";

fn reference(kind: ObjectKind, key: &NamespacedName) -> ObjectRef {
    ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() }
}
