use super::NamespacedName;
use std::{borrow::Borrow, cmp::Ordering, collections::BTreeSet, ops::Deref};

/// What has a name of its own.
pub(super) trait Named {
    fn key(&self) -> &NamespacedName;
}

/// Objects by their own names, in order, as pointers: a map would hold each name once more, and room for as many objects as
/// it holds, for nodes that are filled from one end on stay half empty.
#[derive(Debug)]
pub(super) struct Keyed<P>(BTreeSet<ByKey<P>>);

impl<P> Default for Keyed<P> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<P: Deref<Target: Named>> Keyed<P> {
    pub(super) fn get(&self, key: &NamespacedName) -> Option<&P::Target> {
        self.0.get(key).map(|ByKey(object)| &**object)
    }

    /// Returns the one that it replaces.
    pub(super) fn insert(&mut self, object: P) -> Option<P> {
        self.0.replace(ByKey(object)).map(|ByKey(former)| former)
    }

    pub(super) fn remove(&mut self, key: &NamespacedName) -> Option<P> {
        self.0.take(key).map(|ByKey(former)| former)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &P::Target> + Clone {
        self.0.iter().map(|ByKey(object)| &**object)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &NamespacedName> {
        self.values().map(Named::key)
    }
}

/// Equal, and in order, as the names are.
#[derive(Debug)]
struct ByKey<P>(P);

impl<P: Deref<Target: Named>> Borrow<NamespacedName> for ByKey<P> {
    fn borrow(&self) -> &NamespacedName {
        self.0.key()
    }
}

impl<P: Deref<Target: Named>> PartialEq for ByKey<P> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<P: Deref<Target: Named>> Eq for ByKey<P> {}

impl<P: Deref<Target: Named>> PartialOrd for ByKey<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Deref<Target: Named>> Ord for ByKey<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}
