use super::{EndpointSlice, NamespacedName, import_key, keyed::Keyed};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The EndpointSlices, by whom they belong to: a Service, a ServiceImport (see [`import_key`]), or both.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// By owner, then by name, in the order in which kube-proxy reads them.
    of: BTreeMap<NamespacedName, Vec<Arc<EndpointSlice>>>,
    by_key: Keyed<Arc<EndpointSlice>>,
}

impl Slices {
    /// By slice name.
    pub(super) fn of(&self, owner: &NamespacedName) -> impl Iterator<Item = &EndpointSlice> + Clone {
        self.of.get(owner).into_iter().flatten().map(Arc::as_ref)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &EndpointSlice> + Clone {
        self.by_key.values()
    }

    pub(super) fn get(&self, key: &NamespacedName) -> Option<&EndpointSlice> {
        self.by_key.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &NamespacedName> {
        self.by_key.keys()
    }

    /// Puts a slice in and returns the one it replaces. `affected`: owners that lose, get or keep it; none if nothing
    /// changed.
    pub(super) fn put(
        &mut self,
        slice: EndpointSlice,
        affected: &mut BTreeSet<NamespacedName>,
    ) -> Option<Arc<EndpointSlice>> {
        if self.by_key.get(&slice.key).is_some_and(|former| *former == slice) {
            return None;
        }
        let former = self.remove(&slice.key.clone(), affected);
        let slice = Arc::new(slice);
        for owner in owners(&slice) {
            let slices = self.of.entry(owner.clone()).or_default();
            if let Err(place) = find(slices, &slice.key.name) {
                // Most owners have one or two, and room for four would be most of what they take.
                slices.reserve_exact(1);
                slices.insert(place, Arc::clone(&slice));
            }
            affected.insert(owner);
        }
        self.by_key.insert(slice);
        former
    }

    pub(super) fn remove(
        &mut self,
        key: &NamespacedName,
        affected: &mut BTreeSet<NamespacedName>,
    ) -> Option<Arc<EndpointSlice>> {
        let slice = self.by_key.remove(key)?;
        for owner in owners(&slice) {
            if let Some(slices) = self.of.get_mut(&owner) {
                if let Ok(place) = find(slices, &key.name) {
                    slices.remove(place);
                }
                if slices.is_empty() {
                    self.of.remove(&owner);
                }
            }
            affected.insert(owner);
        }
        Some(slice)
    }
}

/// Where a slice of this name is, or is to be put.
fn find(slices: &[Arc<EndpointSlice>], name: &str) -> Result<usize, usize> {
    slices.binary_search_by(|slice| (*slice.key.name).cmp(name))
}

/// A slice names its Service and its ServiceImport by labels, both in its own namespace.
pub(super) fn owners(slice: &EndpointSlice) -> impl Iterator<Item = NamespacedName> {
    let named = |name: &Arc<str>| NamespacedName::new(slice.key.namespace.clone(), name.clone());
    let service = (!slice.service.is_empty()).then(|| named(&slice.service));
    let import = slice.import.as_ref().map(|name| import_key(&named(name)));
    service.into_iter().chain(import)
}
