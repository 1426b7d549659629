//! A catalog in the making, a few Services at a time: with many of them, all at once would hold up changes of the maps.

use super::{Catalog, CatalogEndpoint, CatalogFrontend, protocol_name};
use crate::{
    desired::{Changes, Frontend, FrontendKey, Judged, JudgedEndpoint, Resolver},
    model::{Model, NamespacedName, SourceCluster, algorithm_name},
};
use std::collections::{BTreeMap, BTreeSet};

/// The Services up to one of them, as they are now.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    rows: BTreeMap<FrontendKey, CatalogFrontend>,
    /// The last Service that is in `rows`.
    last: Option<NamespacedName>,
}

impl Draft {
    /// Adds so many Services. `true`: all are there.
    pub fn proceed(&mut self, model: &Model, resolver: &Resolver, services: usize) -> bool {
        let next: Vec<_> = resolver.services_after(self.last.as_ref()).take(services).cloned().collect();
        let is_complete = next.len() < services;
        for service in next {
            self.enter(model, resolver, &service);
            self.last = Some(service);
        }
        is_complete
    }

    /// What is in here already follows a change that was made meanwhile.
    pub fn follow(&mut self, model: &Model, resolver: &Resolver, changes: &Changes) {
        for key in &changes.removals {
            self.rows.remove(key);
        }
        let Some(last) = self.last.clone() else { return };
        let services: BTreeSet<&NamespacedName> =
            changes.upserts.values().map(|frontend| &frontend.service).collect();
        for service in services.range::<NamespacedName, _>(..=&last) {
            self.enter(model, resolver, service);
        }
    }

    #[must_use]
    pub fn finish(self, cluster: String) -> Catalog {
        Catalog { cluster, frontends: self.rows.into_values().collect() }
    }

    fn enter(&mut self, model: &Model, resolver: &Resolver, service: &NamespacedName) {
        for (key, judged) in resolver.judged(model, service) {
            if let Some(frontend) = resolver.desired().get(&key) {
                self.rows.insert(key, row(&resolver.flags().cluster_name, &key, frontend, &judged));
            }
        }
    }
}

fn row(cluster: &str, key: &FrontendKey, frontend: &Frontend, judged: &Judged) -> CatalogFrontend {
    let endpoint = |endpoint: &JudgedEndpoint| CatalogEndpoint {
        address: endpoint.address.ip(),
        port: endpoint.address.port(),
        cluster: match &endpoint.source {
            SourceCluster::Local => cluster.to_owned(),
            remote @ (SourceCluster::Remote(_) | SourceCluster::Unknown) => remote.to_string(),
        },
        slice: endpoint.slice.clone(),
        verdict: endpoint.verdict.as_str().to_owned(),
        slots: u32::try_from(endpoint.slots).unwrap_or(u32::MAX),
        tier: endpoint.tier.map(|tier| tier + 1),
    };
    CatalogFrontend {
        vip: key.vip,
        port: key.port,
        protocol: protocol_name(key.protocol).to_owned(),
        namespace: frontend.service.namespace.clone(),
        name: frontend.service.name.clone(),
        port_name: frontend.port_name.clone(),
        algorithm: algorithm_name(frontend.algorithm).to_owned(),
        packets_only: frontend.packets_only,
        endpoints: judged.endpoints.iter().map(endpoint).collect(),
        active_tier: judged.active_tier.map(|tier| tier + 1),
    }
}
