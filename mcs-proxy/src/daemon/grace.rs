//! EndpointSlices that were deleted while their Service lives and nothing else backs it, and that are kept for a while.
//!
//! Importers delete and make anew what they manage, and have been seen to take the last slice of a Service away for a
//! second without a pod of it being gone. Only a deletion is doubted: a slice that is emptied, and an endpoint that is
//! not ready, are told by whoever knows.

use crate::{
    model::{EndpointSlice, Model, NamespacedName, ObjectKind},
    source::{Event, Object},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tracing::info;

/// What was deleted and is still in the model.
#[derive(Debug)]
pub(super) struct Grace {
    time: Duration,
    held: BTreeMap<NamespacedName, Held>,
}

#[derive(Debug)]
struct Held {
    service: NamespacedName,
    until: Instant,
}

impl Grace {
    pub(super) const fn new(time: Duration) -> Self {
        Self { time, held: BTreeMap::new() }
    }

    /// The part of the event that holds at once.
    pub(super) fn withhold(&mut self, event: Event, model: &Model, now: Instant) -> Option<Event> {
        match event {
            Event::Deleted(ObjectKind::EndpointSlice, key) => {
                if let Some(slice) = model.slice(&key)
                    && !self.is_backed(&service_of(slice), Some(&key), model)
                    && self.hold(slice, model, now)
                {
                    return None;
                }
                self.held.remove(&key);
                Some(Event::Deleted(ObjectKind::EndpointSlice, key))
            }
            Event::Replaced(ObjectKind::EndpointSlice, mut objects) => {
                let listed: BTreeSet<_> = objects.iter().map(|object| object.key().clone()).collect();
                let backed: BTreeSet<_> = objects.iter().filter_map(backed_by).collect();
                for slice in model.slices().filter(|slice| !listed.contains(&slice.key)) {
                    if !backed.contains(&service_of(slice)) && self.hold(slice, model, now) {
                        objects.push(Object::EndpointSlice(slice.clone()));
                    }
                }
                self.held.retain(|key, _| !listed.contains(key));
                Some(Event::Replaced(ObjectKind::EndpointSlice, objects))
            }
            Event::Applied(Object::EndpointSlice(slice)) => {
                self.held.remove(&slice.key);
                Some(Event::Applied(Object::EndpointSlice(slice)))
            }
            other @ (Event::Applied(_)
            | Event::Deleted(..)
            | Event::Replaced(..)
            | Event::Problem(_)
            | Event::Mended(_)) => Some(other),
        }
    }

    /// Deletions whose time has come, or whose reason to wait has gone: something else backs the Service, or
    /// the Service is gone.
    pub(super) fn release(&mut self, model: &Model, now: Instant) -> Vec<Event> {
        let is_over = |held: &Held| {
            held.until <= now
                || model.service(&held.service).is_none()
                || self.is_backed(&held.service, None, model)
        };
        let over: Vec<_> =
            self.held.iter().filter(|(_, held)| is_over(held)).map(|(key, _)| key.clone()).collect();
        self.held.retain(|key, _| !over.contains(key));
        over.into_iter().map(|key| Event::Deleted(ObjectKind::EndpointSlice, key)).collect()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.held.values().map(|held| held.until).min()
    }

    /// Whether any slice backs the Service, beside this one and those that are kept.
    fn is_backed(&self, service: &NamespacedName, beside: Option<&NamespacedName>, model: &Model) -> bool {
        let counts =
            |slice: &EndpointSlice| Some(&slice.key) != beside && !self.held.contains_key(&slice.key);
        model.slices_of(service).any(|slice| counts(slice) && backs(slice))
    }

    /// Whether the slice, of a Service that nothing else backs, is to be kept.
    fn hold(&mut self, slice: &EndpointSlice, model: &Model, now: Instant) -> bool {
        if self.held.contains_key(&slice.key) {
            return true;
        }
        let service = service_of(slice);
        if self.time.is_zero() || !backs(slice) || model.service(&service).is_none() {
            return false;
        }
        let Self { time, held } = self;
        info!(
            "EndpointSlice {}: deleted, and nothing else backs Service {service}: kept for {time:?}",
            slice.key
        );
        held.insert(slice.key.clone(), Held { service, until: now + *time });
        true
    }
}

fn service_of(slice: &EndpointSlice) -> NamespacedName {
    NamespacedName::new(&*slice.key.namespace, &*slice.service)
}

/// The Service that this slice has endpoints for.
fn backed_by(object: &Object) -> Option<NamespacedName> {
    if let Object::EndpointSlice(slice) = object
        && backs(slice)
    {
        return Some(service_of(slice));
    }
    None
}

fn backs(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().any(|endpoint| endpoint.ready || endpoint.serving)
}

#[cfg(test)]
#[path = "grace_tests.rs"]
mod tests;
