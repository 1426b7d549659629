use super::{
    EndpointSlice, NamespacedName, Node, ObjectKind, ObjectRef, Problem, Service, Settings, SettingsObject,
};
use crate::source::{Event, Object};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// The objects as the source last told them, Services whether or not they are served by us: an annotation may change
/// that at any time.
#[derive(Debug)]
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
    node: Option<Node>,
    settings: Settings,
    /// Of the ConfigMap that `settings` are from.
    settings_key: Option<NamespacedName>,
    /// Kinds of which no complete list has arrived yet.
    awaited: BTreeSet<ObjectKind>,
}

impl Default for Model {
    /// One that awaits Services and EndpointSlices.
    fn default() -> Self {
        Self::awaiting([ObjectKind::Service, ObjectKind::EndpointSlice])
    }
}

impl Model {
    /// A model that is synced once it has had a complete list of each of these kinds.
    pub fn awaiting(kinds: impl IntoIterator<Item = ObjectKind>) -> Self {
        Self {
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            owners: BTreeMap::new(),
            flaws: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            node: None,
            settings: Settings::default(),
            settings_key: None,
            awaited: kinds.into_iter().collect(),
        }
    }

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
    pub fn is_synced(&self) -> bool {
        self.awaited.is_empty()
    }

    /// This node, if it is known.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// What the operator says of clusters and of everything; the defaults without a ConfigMap.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
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
            Object::Node(node) => self.put_node(node, affected),
            Object::Settings(settings) => self.put_settings(settings, affected),
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

    fn put_node(&mut self, mut node: Node, affected: &mut BTreeSet<NamespacedName>) {
        self.note_flaws(ObjectKind::Node, &node.key, mem::take(&mut node.problems));
        if self.node.as_ref() != Some(&node) {
            self.node = Some(node);
            self.affect_all(affected);
        }
    }

    fn put_settings(&mut self, mut object: SettingsObject, affected: &mut BTreeSet<NamespacedName>) {
        self.note_flaws(ObjectKind::ConfigMap, &object.key, mem::take(&mut object.problems));
        object.keep_last_good_of(&self.settings);
        self.settings_key = Some(object.key);
        self.change_settings(object.settings, affected);
    }

    fn change_settings(&mut self, settings: Settings, affected: &mut BTreeSet<NamespacedName>) {
        if self.settings != settings {
            self.settings = settings;
            self.affect_all(affected);
        }
    }

    /// What every Service's endpoints are judged by has changed.
    fn affect_all(&self, affected: &mut BTreeSet<NamespacedName>) {
        affected.extend(self.services.keys().cloned());
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
            ObjectKind::Node => {
                if self.node.take_if(|node| node.key == *key).is_some() {
                    self.affect_all(affected);
                }
            }
            ObjectKind::ConfigMap => {
                if self.settings_key.take_if(|settings| settings == key).is_some() {
                    self.change_settings(Settings::default(), affected);
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
            ObjectKind::Node => self.node.iter().map(|node| node.key.clone()).collect(),
            ObjectKind::ConfigMap => self.settings_key.iter().cloned().collect(),
            ObjectKind::File => return,
        };
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            gone.remove(object.key());
            self.put(object, affected);
        }
        for key in gone {
            self.remove(kind, &key, affected);
        }
        self.awaited.remove(&kind);
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
