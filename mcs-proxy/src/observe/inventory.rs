//! What should be in the maps, and whose it is: the catalog, in as little memory as it takes to hold the maps against it
//! and to name what they counted.

use super::catalog::{Batch, Catalog, CatalogEndpoint, CatalogFrontend, Line};
use crate::{
    desired::{EndpointVerdict, FrontendKey},
    model::{NamespacedName, algorithm_name},
};
use mcs_proxy_ebpf::abi::Algorithm;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// As of one commit of the maps.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    namespaces: BTreeSet<Arc<str>>,
    clusters: Interned<String>,
    /// Clusters with verdicts.
    kinds: Interned<(String, String)>,
    frontends: BTreeMap<FrontendKey, Item>,
    /// Endpoints that slices list, by cluster and verdict.
    pub verdicts: BTreeMap<(String, String), usize>,
}

/// A frontend.
#[derive(Clone, Debug)]
pub struct Item {
    service: NamespacedName,
    /// `None`: it was not told.
    pub algorithm: Option<Algorithm>,
    pub packets_only: bool,
    /// Those that take new flows, by address.
    targets: Box<[Target]>,
    /// How many endpoints are of which kind.
    kinds: Box<[(u32, u32)]>,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    /// Not a [`SocketAddr`], which has room for a flow label and a scope: there may be a hundred thousand.
    ip: IpAddr,
    port: u16,
    cluster: u32,
    slots: u32,
}

impl Target {
    const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl Inventory {
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        let mut inventory = Self::default();
        for frontend in &catalog.frontends {
            inventory.enter(frontend);
        }
        inventory
    }

    /// Takes in what the catalog's file is told.
    pub fn follow(&mut self, batch: &Batch) {
        for line in batch.lines() {
            match line {
                Line::Cluster(_) => {}
                Line::Frontend(frontend) => self.enter(&frontend),
                Line::Gone(name) => {
                    if let Some(key) = name.key() {
                        self.remove(&key);
                    }
                }
            }
        }
    }

    fn enter(&mut self, frontend: &CatalogFrontend) {
        let Some(key) = frontend.key() else { return };
        self.remove(&key);
        let mut targets: Vec<Target> = Vec::new();
        let mut kinds: BTreeMap<u32, u32> = BTreeMap::new();
        for endpoint in &frontend.endpoints {
            let CatalogEndpoint { address, port, cluster, verdict, slots, .. } = endpoint;
            let kind = (cluster.clone(), verdict.clone());
            *kinds.entry(self.kinds.number(&kind)).or_default() += 1;
            *self.verdicts.entry(kind).or_default() += 1;
            if endpoint.is_used() {
                targets.push(Target {
                    ip: *address,
                    port: *port,
                    cluster: self.clusters.number(cluster),
                    slots: *slots,
                });
            }
        }
        targets.sort_unstable_by_key(Target::address);
        let algorithms = [Algorithm::RoundRobin, Algorithm::Random, Algorithm::Maglev];
        let item = Item {
            service: NamespacedName::new(self.namespace(&frontend.namespace), &*frontend.name),
            algorithm: algorithms.into_iter().find(|one| algorithm_name(*one) == frontend.algorithm),
            packets_only: frontend.packets_only,
            targets: targets.into_boxed_slice(),
            kinds: kinds.into_iter().collect(),
        };
        self.frontends.insert(key, item);
    }

    fn remove(&mut self, key: &FrontendKey) {
        let Some(item) = self.frontends.remove(key) else { return };
        for (kind, count) in item.kinds {
            let Some(kind) = self.kinds.all.get(kind as usize) else { continue };
            if let Some(left) = self.verdicts.get_mut(kind) {
                *left = left.saturating_sub(count as usize);
                if *left == 0 {
                    self.verdicts.remove(kind);
                }
            }
        }
    }

    fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.namespaces.insert(Arc::clone(&name));
        name
    }

    /// Endpoints that have no new flows because they, or their cluster, do not answer: by Service and cluster, of all its
    /// frontends.
    #[must_use]
    pub fn unanswered(&self) -> BTreeMap<(NamespacedName, String), usize> {
        let reasons =
            [EndpointVerdict::ClusterUnanswered, EndpointVerdict::Unanswered].map(EndpointVerdict::as_str);
        let mut found = BTreeMap::new();
        // Most of the time there are none, and a great many frontends.
        if !self.verdicts.keys().any(|(_, verdict)| reasons.contains(&verdict.as_str())) {
            return found;
        }
        for item in self.frontends.values() {
            for (kind, count) in &item.kinds {
                if let Some((cluster, verdict)) = self.kinds.all.get(*kind as usize)
                    && reasons.contains(&verdict.as_str())
                {
                    *found.entry((item.service.clone(), cluster.clone())).or_default() += *count as usize;
                }
            }
        }
        found
    }

    pub fn frontends(&self) -> impl Iterator<Item = (&FrontendKey, &Item)> {
        self.frontends.iter()
    }

    #[must_use]
    pub fn get(&self, key: &FrontendKey) -> Option<&Item> {
        self.frontends.get(key)
    }

    /// The cluster whose pod a target of the frontend is.
    #[must_use]
    pub fn cluster(&self, item: &Item, address: SocketAddr) -> Option<&str> {
        let at = item.targets.binary_search_by_key(&address, Target::address).ok()?;
        self.clusters.all.get(item.targets.get(at)?.cluster as usize).map(String::as_str)
    }

    /// How many frontends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frontends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }
}

impl Item {
    #[must_use]
    pub const fn service(&self) -> &NamespacedName {
        &self.service
    }

    /// Who takes new flows, with their slots.
    pub fn targets(&self) -> impl Iterator<Item = (SocketAddr, u32)> + '_ {
        self.targets.iter().map(|target| (target.address(), target.slots))
    }
}

/// Numbers for what comes again and again.
#[derive(Clone, Debug)]
struct Interned<T> {
    all: Vec<T>,
    numbers: BTreeMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { all: Vec::new(), numbers: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Interned<T> {
    fn number(&mut self, one: &T) -> u32 {
        if let Some(number) = self.numbers.get(one) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(one.clone());
        self.numbers.insert(one.clone(), number);
        number
    }
}
