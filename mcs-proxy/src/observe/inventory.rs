//! What should be in the maps, and whose it is: the catalog, in as little memory as it takes to hold the maps against it
//! and to name what they counted.

use super::catalog::{Catalog, CatalogEndpoint, protocol_of};
use crate::{
    desired::FrontendKey,
    model::{NamespacedName, algorithm_name},
};
use mcs_proxy_ebpf::abi::Algorithm;
use std::{collections::BTreeMap, net::SocketAddr};

/// As of one commit of the maps.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Which commit: how many had been carried out.
    pub commits: u64,
    services: Vec<NamespacedName>,
    clusters: Vec<String>,
    frontends: BTreeMap<FrontendKey, Item>,
    /// Endpoints that slices list, by cluster and verdict.
    pub verdicts: BTreeMap<(String, String), usize>,
}

/// A frontend.
#[derive(Clone, Debug)]
pub struct Item {
    service: u32,
    /// `None`: it was not told.
    pub algorithm: Option<Algorithm>,
    pub packets_only: bool,
    /// Those that take new flows, by address.
    targets: Box<[Target]>,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    address: SocketAddr,
    cluster: u32,
    slots: u32,
}

impl Inventory {
    #[must_use]
    pub fn of(catalog: &Catalog, commits: u64) -> Self {
        let (mut services, mut clusters) = (Interned::default(), Interned::default());
        let mut inventory = Self { commits, ..Self::default() };
        for frontend in &catalog.frontends {
            let Some(protocol) = protocol_of(&frontend.protocol) else { continue };
            let mut targets: Vec<Target> = Vec::new();
            for endpoint in &frontend.endpoints {
                let CatalogEndpoint { address, port, cluster, verdict, slots, .. } = endpoint;
                let count = inventory.verdicts.entry((cluster.clone(), verdict.clone())).or_default();
                *count += 1;
                if endpoint.is_used() {
                    targets.push(Target {
                        address: SocketAddr::new(*address, *port),
                        cluster: clusters.number(cluster),
                        slots: *slots,
                    });
                }
            }
            targets.sort_unstable_by_key(|target| target.address);
            let key = FrontendKey { vip: frontend.vip, port: frontend.port, protocol };
            let name = NamespacedName::new(&*frontend.namespace, &*frontend.name);
            let algorithms = [Algorithm::RoundRobin, Algorithm::Random, Algorithm::Maglev];
            let item = Item {
                service: services.number(&name),
                algorithm: algorithms.into_iter().find(|one| algorithm_name(*one) == frontend.algorithm),
                packets_only: frontend.packets_only,
                targets: targets.into_boxed_slice(),
            };
            inventory.frontends.insert(key, item);
        }
        (inventory.services, inventory.clusters) = (services.all, clusters.all);
        inventory
    }

    pub fn frontends(&self) -> impl Iterator<Item = (&FrontendKey, &Item)> {
        self.frontends.iter()
    }

    #[must_use]
    pub fn get(&self, key: &FrontendKey) -> Option<&Item> {
        self.frontends.get(key)
    }

    #[must_use]
    pub fn service(&self, item: &Item) -> Option<&NamespacedName> {
        self.services.get(item.service as usize)
    }

    /// The cluster whose pod a target of the frontend is.
    #[must_use]
    pub fn cluster(&self, item: &Item, address: SocketAddr) -> Option<&str> {
        let at = item.targets.binary_search_by_key(&address, |target| target.address).ok()?;
        self.clusters.get(item.targets.get(at)?.cluster as usize).map(String::as_str)
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
    /// Who takes new flows, with their slots.
    pub fn targets(&self) -> impl Iterator<Item = (SocketAddr, u32)> + '_ {
        self.targets.iter().map(|target| (target.address, target.slots))
    }
}

/// Numbers for what comes again and again.
#[derive(Debug)]
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
