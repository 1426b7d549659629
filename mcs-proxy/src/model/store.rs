use super::{EndpointSlice, NamespacedName, ObjectKind, ObjectRef, Problem, Service};
use crate::source::{Event, Object};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// The Services and EndpointSlices as the source last told them, whether or not they are served by us: an annotation
/// may change that at any time.
#[derive(Debug, Default)]
pub struct Model {
    services: BTreeMap<NamespacedName, Service>,
    /// By the Service they belong to, then by name, in the order in which kube-proxy reads them.
    slices: BTreeMap<NamespacedName, BTreeMap<String, EndpointSlice>>,
    /// Name of the Service (of the same namespace) that a slice belongs to.
    owners: BTreeMap<NamespacedName, String>,
    /// Of objects that were read.
    flaws: BTreeMap<ObjectRef, Vec<Problem>>,
    /// Of objects and files that could not be read; what was last good of them is still in the maps above.
    unreadable: BTreeMap<ObjectRef, BTreeSet<Problem>>,
    services_synced: bool,
    slices_synced: bool,
}

impl Model {
    /// Takes an event in and says which Services it may change. Empty if nothing changed.
    pub fn apply(&mut self, event: Event) -> BTreeSet<NamespacedName> {
        let mut affected = BTreeSet::new();
        match event {
            Event::Applied(object) => self.put(object, &mut affected),
            Event::Deleted(kind, key) => self.remove(kind, &key, &mut affected),
            Event::Replaced(kind, objects) => self.replace(kind, objects, &mut affected),
            Event::Problem(problem) => {
                self.unreadable.entry(problem.object.clone()).or_default().insert(problem);
            }
            Event::Mended(object) => {
                self.unreadable.remove(&object);
            }
        }
        affected
    }

    /// Whether a complete list of every kind has arrived. Until then what is missing may only be late.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.services_synced && self.slices_synced
    }

    #[must_use]
    pub fn service(&self, key: &NamespacedName) -> Option<&Service> {
        self.services.get(key)
    }

    /// All Services, ours or not, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The slices of a Service, by name.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &EndpointSlice> + Clone {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// All that is wrong with objects and files now, by object.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.unreadable.values().flatten().chain(self.flaws.values().flatten())
    }

    fn put(&mut self, object: Object, affected: &mut BTreeSet<NamespacedName>) {
        match object {
            Object::Service(service) => self.put_service(service, affected),
            Object::EndpointSlice(slice) => self.put_slice(slice, affected),
        }
    }

    fn put_service(&mut self, mut service: Service, affected: &mut BTreeSet<NamespacedName>) {
        let key = service.key.clone();
        self.note_flaws(ObjectKind::Service, &key, mem::take(&mut service.problems));
        let previous = self.services.get(&key);
        if let Some(previous) = previous {
            service.keep_last_good_of(previous);
        }
        if previous != Some(&service) {
            self.services.insert(key.clone(), service);
            affected.insert(key);
        }
    }

    fn put_slice(&mut self, mut slice: EndpointSlice, affected: &mut BTreeSet<NamespacedName>) {
        let key = slice.key.clone();
        let service = NamespacedName::new(&*key.namespace, &*slice.service);
        let former = self.owners.insert(key.clone(), slice.service.clone());
        if let Some(former) = former.filter(|former| *former != slice.service) {
            self.take_slice(NamespacedName::new(&*key.namespace, former), &key.name, affected);
        }
        self.note_flaws(ObjectKind::EndpointSlice, &key, mem::take(&mut slice.problems));
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&key.name) != Some(&slice) {
            slices.insert(key.name, slice);
            affected.insert(service);
        }
    }

    fn remove(&mut self, kind: ObjectKind, key: &NamespacedName, affected: &mut BTreeSet<NamespacedName>) {
        match kind {
            ObjectKind::Service => {
                if self.services.remove(key).is_some() {
                    affected.insert(key.clone());
                }
            }
            ObjectKind::EndpointSlice => {
                if let Some(service) = self.owners.remove(key) {
                    self.take_slice(NamespacedName::new(&*key.namespace, service), &key.name, affected);
                }
            }
            ObjectKind::File => return,
        }
        self.note_flaws(kind, key, Vec::new());
    }

    fn replace(&mut self, kind: ObjectKind, objects: Vec<Object>, affected: &mut BTreeSet<NamespacedName>) {
        let mut gone: BTreeSet<NamespacedName> = match kind {
            ObjectKind::Service => self.services.keys().cloned().collect(),
            ObjectKind::EndpointSlice => self.owners.keys().cloned().collect(),
            ObjectKind::File => return,
        };
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            gone.remove(object.key());
            self.put(object, affected);
        }
        for key in gone {
            self.remove(kind, &key, affected);
        }
        match kind {
            ObjectKind::Service => self.services_synced = true,
            ObjectKind::EndpointSlice => self.slices_synced = true,
            ObjectKind::File => {}
        }
    }

    fn take_slice(&mut self, service: NamespacedName, slice: &str, affected: &mut BTreeSet<NamespacedName>) {
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
            affected.insert(service);
        }
    }

    fn note_flaws(&mut self, kind: ObjectKind, key: &NamespacedName, problems: Vec<Problem>) {
        let object = ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() };
        if problems.is_empty() {
            self.flaws.remove(&object);
        } else {
            self.flaws.insert(object, problems);
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
