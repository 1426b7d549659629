//! Equal values held once.

use super::{EndpointSlice, Place, Service, SlicePort, SourceCluster};
use std::{collections::BTreeSet, sync::Arc};

/// What many objects say alike: with a hundred thousand endpoints a copy each would be most of the daemon's memory. To be
/// asked about each object as soon as it is decoded: copies that are freed only after the next objects were read leave
/// holes that nothing fits in.
#[derive(Debug, Default)]
pub struct Interner {
    names: Pool<str>,
    ports: Pool<[SlicePort]>,
    places: Pool<Place>,
}

impl Interner {
    /// Has the slice share what others have said already. Its own name aside, which no other has.
    pub fn share(&mut self, slice: &mut EndpointSlice) {
        self.names.share(&mut slice.key.namespace);
        self.names.share(&mut slice.service);
        if let SourceCluster::Remote(name) = &mut slice.source {
            self.names.share(name);
        }
        self.ports.share(&mut slice.ports);
        for place in slice.endpoints.iter_mut().filter_map(|endpoint| endpoint.place.as_mut()) {
            self.places.share(place);
        }
    }

    /// The same of a Service.
    pub fn share_in_service(&mut self, service: &mut Service) {
        self.names.share(&mut service.key.namespace);
        for port in &mut service.ports {
            self.names.share(&mut port.name);
        }
    }
}

/// Values that are in use, and some that no longer are: they go when there are twice as many as were left the last time.
#[derive(Debug)]
struct Pool<T: ?Sized> {
    known: BTreeSet<Arc<T>>,
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

impl<T: ?Sized + Ord> Pool<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(value) {
            value.clone_from(known);
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = FIRST_SWEEP.max(2 * self.known.len());
        }
        self.known.insert(Arc::clone(value));
    }
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: BTreeSet::new(), sweep_at: FIRST_SWEEP }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::slice;

    #[test]
    fn slices_share_what_they_say_alike() {
        let mut interner = Interner::default();
        let place = || Some(Arc::new(Place { zone: Some("zone-a".into()), ..Place::default() }));
        let [a, b] = ["a", "b"].map(|name| {
            let mut slice = slice(name, "serve", "member1", &["10.10.0.6", "10.10.0.7"]);
            slice.endpoints.iter_mut().for_each(|endpoint| endpoint.place = place());
            let before = slice.clone();
            interner.share(&mut slice);
            assert_eq!(slice, before, "nothing but memory changes");
            slice
        });
        assert!(Arc::ptr_eq(&a.key.namespace, &b.key.namespace) && Arc::ptr_eq(&a.ports, &b.ports));
        let places: Vec<_> = [&a, &b].into_iter().flat_map(|slice| &slice.endpoints).collect();
        let first = places[0].place.as_ref().unwrap();
        assert!(places.iter().all(|endpoint| Arc::ptr_eq(endpoint.place.as_ref().unwrap(), first)));
        let (SourceCluster::Remote(a), SourceCluster::Remote(b)) = (&a.source, &b.source) else { panic!() };
        assert!(Arc::ptr_eq(a, b));
    }

    #[test]
    fn what_nobody_says_any_more_is_forgotten() {
        let mut pool = Pool::<str>::default();
        let kept: Arc<str> = "kept".into();
        pool.share(&mut Arc::clone(&kept));
        for number in 0..100_000 {
            pool.share(&mut number.to_string().into());
        }
        assert!(pool.known.len() <= 2 * FIRST_SWEEP, "{}", pool.known.len());
        let mut again: Arc<str> = "kept".into();
        pool.share(&mut again);
        assert!(Arc::ptr_eq(&again, &kept));
    }
}
