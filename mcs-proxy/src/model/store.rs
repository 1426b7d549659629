use super::{
    EndpointSlice, Limits, NamespacedName, Node, ObjectKind, ObjectRef, Problem, Service, Settings,
    SettingsObject, SourceCluster, Surroundings, quota::Quotas,
};
use crate::source::{Event, Object};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
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
    surroundings: Surroundings,
    /// Addresses that became ClusterIPs, or ceased to be, with the event that is being taken in.
    changed_vips: BTreeSet<IpAddr>,
    quotas: Quotas,
    /// Of slices of which not all is let in.
    refused: BTreeMap<NamespacedName, Problem>,
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
            surroundings: Surroundings::default(),
            changed_vips: BTreeSet::new(),
            quotas: Quotas::new(Limits::DEFAULT),
            refused: BTreeMap::new(),
        }
    }

    /// The same, with other limits for what the other clusters may bring. Only for one that has taken nothing in yet.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.quotas = Quotas::new(limits);
        self
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
        self.admit_waiting(&mut affected);
        self.affect_importers(&mut affected);
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

    /// What endpoints are held against.
    #[must_use]
    pub const fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    #[cfg(test)]
    pub(super) const fn quotas_for_tests(&self) -> &Quotas {
        &self.quotas
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
        let of_objects = self.flaws.values().flatten().chain(self.refused.values());
        self.unreadable.values().flatten().chain(of_objects)
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
            let former = previous.map(|previous| previous.cluster_ips.as_slice()).unwrap_or_default();
            self.changed_vips.extend(self.surroundings.exchange_vips(former, &service.cluster_ips));
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
        self.admit(slice, service, affected);
    }

    /// Lets a slice in, as far as there is room for it.
    fn admit(
        &mut self,
        mut slice: EndpointSlice,
        service: NamespacedName,
        affected: &mut BTreeSet<NamespacedName>,
    ) {
        let siblings = siblings(&self.slices, &slice);
        let slices = self.slices.entry(service.clone()).or_default();
        let former = slices.get(&slice.key.name);
        match self.quotas.admit(&mut slice, former, siblings, &self.settings) {
            Some(problem) => self.refused.insert(slice.key.clone(), problem),
            None => self.refused.remove(&slice.key),
        };
        if former != Some(&slice) {
            slices.insert(slice.key.name.clone(), slice);
            affected.insert(service);
        }
    }

    /// Room may have come for what waits.
    fn admit_waiting(&mut self, affected: &mut BTreeSet<NamespacedName>) {
        let present = |slice: &EndpointSlice| {
            let service = NamespacedName::new(&*slice.key.namespace, &*slice.service);
            let known = self.slices.get(&service).and_then(|slices| slices.get(&slice.key.name));
            known.map_or(0, |known| known.endpoints.len())
        };
        let siblings = |slice: &EndpointSlice| siblings(&self.slices, slice);
        for slice in self.quotas.take_fitting(&self.settings, siblings, present) {
            let service = NamespacedName::new(&*slice.key.namespace, &*slice.service);
            self.admit(slice, service, affected);
        }
    }

    /// Imports that name an address that became a ClusterIP are refused from now on, and the other way round.
    fn affect_importers(&mut self, affected: &mut BTreeSet<NamespacedName>) {
        let changed = mem::take(&mut self.changed_vips);
        // Before that everything is still to be judged.
        if changed.is_empty() || !self.is_synced() {
            return;
        }
        let names_one = |slice: &EndpointSlice| {
            slice.source != SourceCluster::Local
                && slice.endpoints.iter().any(|endpoint| changed.contains(&endpoint.address))
        };
        let importers = self.slices.iter().filter(|(_, slices)| slices.values().any(names_one));
        affected.extend(importers.map(|(service, _)| service.clone()));
    }

    fn put_node(&mut self, mut node: Node, affected: &mut BTreeSet<NamespacedName>) {
        self.note_flaws(ObjectKind::Node, &node.key, mem::take(&mut node.problems));
        if self.node.as_ref() != Some(&node) {
            self.surroundings.set_node(&node.addresses);
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
            self.surroundings.set_ranges(&settings);
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
                if let Some(service) = self.services.remove(key) {
                    self.changed_vips.extend(self.surroundings.exchange_vips(&service.cluster_ips, &[]));
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
                    self.surroundings.set_node(&[]);
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
            if let Some(slice) = slices.remove(slice) {
                self.quotas.release(&slice);
                self.refused.remove(&slice.key);
            }
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

/// How many endpoints the Service's other slices from the same cluster have.
fn siblings(
    slices: &BTreeMap<NamespacedName, BTreeMap<String, EndpointSlice>>,
    slice: &EndpointSlice,
) -> usize {
    let service = NamespacedName::new(&*slice.key.namespace, &*slice.service);
    let others = slices.get(&service).into_iter().flat_map(BTreeMap::values);
    others
        .filter(|other| other.source == slice.source && other.key != slice.key)
        .map(|other| other.endpoints.len())
        .sum()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
