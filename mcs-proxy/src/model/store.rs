use super::{
    Clusters, EndpointSlice, Ledger, Limits, Mode, NamespacedName, Node, NodeMode, ObjectKind, ObjectRef,
    Problem, ProblemChanges, Service, ServiceImport, Settings, SettingsObject, SourceCluster, Surroundings,
    import_key,
    imports::{Imports, Others},
    keyed::Keyed,
    misnaming::Misnaming,
    quota::Quotas,
    slices::{Slices, owners},
};
use crate::source::{Event, Object};
use ipnet::IpNet;
use std::{collections::BTreeSet, mem, net::IpAddr};

/// The objects as the source last told them, Services whether or not they are served by us: an annotation may change
/// that at any time.
#[derive(Debug)]
pub struct Model {
    services: Keyed<Box<Service>>,
    slices: Slices,
    imports: Imports,
    clusters: Clusters,
    /// By what importers call this cluster.
    misnaming: Misnaming,
    /// Of objects that were read.
    flaws: Ledger<ObjectRef>,
    /// Of objects and files that could not be read; what was last good of them is still in the maps above.
    unreadable: Ledger<ObjectRef>,
    node: Option<Node>,
    settings: Settings,
    /// What was ordered on this node.
    node_mode: NodeMode,
    /// Of the ConfigMap that `settings` are from.
    settings_key: Option<NamespacedName>,
    /// Kinds of which no complete list has arrived yet.
    awaited: BTreeSet<ObjectKind>,
    surroundings: Surroundings,
    /// Addresses that became ClusterIPs, or ceased to be, with the event that is being taken in.
    changed_vips: BTreeSet<IpAddr>,
    quotas: Quotas,
    /// Of slices of which not all is let in.
    refused: Ledger<NamespacedName>,
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
            services: Keyed::default(),
            slices: Slices::default(),
            imports: Imports::default(),
            clusters: Clusters::default(),
            misnaming: Misnaming::default(),
            flaws: Ledger::default(),
            unreadable: Ledger::default(),
            node: None,
            settings: Settings::default(),
            node_mode: NodeMode::Auto,
            settings_key: None,
            awaited: kinds.into_iter().collect(),
            surroundings: Surroundings::default(),
            changed_vips: BTreeSet::new(),
            quotas: Quotas::new(Limits::DEFAULT),
            refused: Ledger::default(),
        }
    }

    /// The same, with other limits for what the other clusters may bring. Only for one that has taken nothing in yet.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.quotas = Quotas::new(limits);
        self
    }

    /// The same, with the ranges that addresses of ServiceImports may be in (`--serviceimport-cidrs`).
    #[must_use]
    pub fn with_import_ranges(self, ranges: Vec<IpNet>) -> Self {
        Self { imports: Imports::new(ranges), ..self }
    }

    /// Takes an event in and says which Services it may change. Empty if nothing changed.
    pub fn apply(&mut self, event: Event) -> BTreeSet<NamespacedName> {
        let mut affected = BTreeSet::new();
        match event {
            Event::Applied(object) => self.put(object, &mut affected),
            Event::Deleted(kind, key) => self.remove(kind, &key, &mut affected),
            Event::Replaced(kind, objects) => self.replace(kind, objects, &mut affected),
            Event::Problem(problem) => {
                self.unreadable.add(problem.object.clone(), problem);
            }
            Event::Mended(object) => {
                self.unreadable.put(object, Vec::new());
            }
        }
        self.admit_waiting(&mut affected);
        self.affect_importers(&mut affected);
        self.affect_sharers(&mut affected);
        affected
    }

    /// Whether a complete list of every kind has arrived. Until then what is missing may only be late.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Kinds of which no complete list has arrived yet.
    pub fn awaited(&self) -> impl Iterator<Item = ObjectKind> {
        self.awaited.iter().copied()
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

    /// The ConfigMap that they are from.
    #[must_use]
    pub const fn settings_key(&self) -> Option<&NamespacedName> {
        self.settings_key.as_ref()
    }

    /// Those that such slices belong to.
    pub fn owners_of(&self, is_such: impl Fn(&EndpointSlice) -> bool) -> BTreeSet<NamespacedName> {
        self.slices.all().filter(|slice| is_such(slice)).flat_map(owners).collect()
    }

    /// What was ordered on this node, by `mcs-proxy mode`.
    #[must_use]
    pub const fn node_mode(&self) -> NodeMode {
        self.node_mode
    }

    /// What holds of the settings' `mode` and the node's. Whoever is to leave takes no new flows, whatever they say.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self.node_mode.over(self.settings.mode) {
            Mode::Active if self.settings.uninstall.is_some() => Mode::Drain,
            mode @ (Mode::Active | Mode::Drain | Mode::Bypass) => mode,
        }
    }

    /// Orders a mode on this node. Returns the affected Services.
    pub fn order(&mut self, mode: NodeMode) -> BTreeSet<NamespacedName> {
        let before = self.mode();
        self.node_mode = mode;
        let mut affected = BTreeSet::new();
        if self.mode() != before {
            self.affect_all(&mut affected);
        }
        affected
    }

    /// The other clusters that slices come from.
    #[must_use]
    pub const fn clusters(&self) -> &Clusters {
        &self.clusters
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

    /// A Service, with what a ServiceImport that it is derived from makes of it; or, by its [`import_key`], what a
    /// ServiceImport has beside.
    #[must_use]
    pub fn service(&self, key: &NamespacedName) -> Option<&Service> {
        self.imports.effective().get(key).or_else(|| self.services.get(key))
    }

    /// All that [`Self::service`] finds, ours or not.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        let effective = self.imports.effective();
        let plain = self.services.values().filter(|service| !effective.contains_key(&service.key));
        plain.chain(effective.values())
    }

    /// The slices of a Service, or of what a ServiceImport has beside, by name.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &EndpointSlice> + Clone {
        self.slices.of(service)
    }

    /// What importers call this cluster, if that is not `--cluster-name`.
    pub fn misnamed(&self) -> Option<&str> {
        self.misnaming.name()
    }

    /// A slice by its own name.
    #[must_use]
    pub fn slice(&self, key: &NamespacedName) -> Option<&EndpointSlice> {
        self.slices.get(key)
    }

    /// All slices, whether or not their Service is there.
    pub fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.all()
    }

    /// All that is wrong with objects and files now, by object.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let told = self.unreadable.iter().chain(self.flaws.iter()).chain(self.refused.iter());
        told.chain(self.imports.problems().iter()).chain(self.misnaming.problem().iter())
    }

    /// How [`Self::problems`] changed since the last call.
    pub fn take_problem_changes(&mut self) -> [ProblemChanges; 5] {
        [
            self.unreadable.take_changes(),
            self.flaws.take_changes(),
            self.refused.take_changes(),
            self.imports.problems_mut().take_changes(),
            self.misnaming.problem_mut().take_changes(),
        ]
    }

    fn put(&mut self, object: Object, affected: &mut BTreeSet<NamespacedName>) {
        match object {
            Object::Service(service) => self.put_service(service, affected),
            Object::EndpointSlice(slice) => self.put_slice(slice, affected),
            Object::ServiceImport(import) => self.put_import(import, affected),
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
            let before = previous.map(|previous| previous.cluster_ips.as_slice()).unwrap_or_default();
            self.changed_vips.extend(self.surroundings.exchange_vips(before, &service.cluster_ips));
            let ips = service.cluster_ips.clone();
            let former = self.services.insert(Box::new(service));
            self.service_changed(&key, former, ips, affected);
        }
    }

    fn put_import(&mut self, mut import: ServiceImport, affected: &mut BTreeSet<NamespacedName>) {
        let key = import.key.clone();
        self.note_flaws(ObjectKind::ServiceImport, &key, mem::take(&mut import.problems));
        if let Some(previous) = self.imports.get(&key) {
            import.service.keep_last_good_of(&previous.service);
        }
        self.change_import(&key, Some(import), affected);
    }

    fn change_import(
        &mut self,
        key: &NamespacedName,
        import: Option<ServiceImport>,
        affected: &mut BTreeSet<NamespacedName>,
    ) {
        let derived = |model: &Self| model.imports.derived_of(key);
        let former = derived(self);
        if !self.imports.put(key, import) {
            return;
        }
        self.settle_imports([key.clone()], affected);
        for service in former.union(&derived(self)) {
            if self.imports.settle_service(service, self.services.get(service)) {
                affected.insert(service.clone());
            }
        }
    }

    /// A Service is new, changed or gone; `ips` are those it has now.
    fn service_changed(
        &mut self,
        key: &NamespacedName,
        former: Option<Box<Service>>,
        ips: Vec<IpAddr>,
        affected: &mut BTreeSet<NamespacedName>,
    ) {
        affected.insert(key.clone());
        if self.imports.is_empty() {
            return;
        }
        self.imports.settle_service(key, self.services.get(key));
        let former = former.into_iter().flat_map(|service| service.cluster_ips);
        let mut imports = self.imports.with_ips(former.chain(ips));
        imports.extend(self.imports.of_derived(key));
        self.settle_imports(imports, affected);
    }

    fn settle_imports(
        &mut self,
        imports: impl IntoIterator<Item = NamespacedName>,
        affected: &mut BTreeSet<NamespacedName>,
    ) {
        let Self { services, slices, node, .. } = self;
        let others = Others { services, node: node.as_ref(), slices: slices.all() };
        for import in imports {
            let key = import_key(&import);
            let ips = |imports: &Imports| {
                imports.effective().get(&key).map(|own| own.cluster_ips.clone()).unwrap_or_default()
            };
            let before = ips(&self.imports);
            if self.imports.settle_import(&import, &others) {
                let changed = self.surroundings.exchange_vips(&before, &ips(&self.imports));
                self.changed_vips.extend(changed);
                affected.insert(key);
            }
        }
    }

    fn put_slice(&mut self, mut slice: EndpointSlice, affected: &mut BTreeSet<NamespacedName>) {
        let key = slice.key.clone();
        self.note_flaws(ObjectKind::EndpointSlice, &key, mem::take(&mut slice.problems));
        self.misnaming.note(&key, slice.misnamed.take());
        self.admit(slice, affected);
    }

    /// Lets a slice in, as far as there is room for it.
    fn admit(&mut self, mut slice: EndpointSlice, affected: &mut BTreeSet<NamespacedName>) {
        let siblings = siblings(&self.slices, &slice);
        let former = self.slices.get(&slice.key);
        let refused = self.quotas.admit(&mut slice, former, siblings, &self.settings);
        self.refused.put(slice.key.clone(), refused.into_iter().collect());
        let former = former.map(|former| former.source.clone());
        self.cluster_changed(former.as_ref(), Some(&slice.source), affected);
        let ips = self.imports.with_ips(slice.endpoints.iter().map(|endpoint| endpoint.address));
        let former = self.slices.put(slice, affected);
        self.slice_changed(former.as_deref(), ips, affected);
    }

    /// A slice is, was, or is no more of such a cluster. Services that name clusters by tiers are told which of them there are.
    fn cluster_changed(
        &mut self,
        former: Option<&SourceCluster>,
        now: Option<&SourceCluster>,
        affected: &mut BTreeSet<NamespacedName>,
    ) {
        // Before that everything is still to be judged.
        if self.clusters.exchange(former, now) && self.is_synced() {
            let names_one = |service: &&Service| {
                service.clusters.as_ref().is_some_and(|tiers| tiers.names().next().is_some())
            };
            affected.extend(self.services().filter(names_one).map(|service| service.key.clone()));
        }
    }

    /// `imports`: those that have an address which the slice names now.
    fn slice_changed(
        &mut self,
        former: Option<&EndpointSlice>,
        mut imports: BTreeSet<NamespacedName>,
        affected: &mut BTreeSet<NamespacedName>,
    ) {
        let named = former.into_iter().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.address);
        imports.extend(self.imports.with_ips(named));
        self.settle_imports(imports, affected);
    }

    /// Room may have come for what waits.
    fn admit_waiting(&mut self, affected: &mut BTreeSet<NamespacedName>) {
        let present =
            |slice: &EndpointSlice| self.slices.get(&slice.key).map_or(0, |known| known.endpoints.len());
        let siblings = |slice: &EndpointSlice| siblings(&self.slices, slice);
        for slice in self.quotas.take_fitting(&self.settings, siblings, present) {
            self.admit(slice, affected);
        }
    }

    /// Services that have a ClusterIP together with another one, or no longer.
    fn affect_sharers(&mut self, affected: &mut BTreeSet<NamespacedName>) {
        let sharing = self.surroundings.take_sharing();
        if sharing.is_empty() {
            return;
        }
        let shares = |service: &&Service| service.cluster_ips.iter().any(|vip| sharing.contains(vip));
        affected.extend(self.services().filter(shares).map(|service| service.key.clone()));
    }

    /// Imports that name an address that became a ClusterIP are refused from now on, and the other way round.
    fn affect_importers(&mut self, affected: &mut BTreeSet<NamespacedName>) {
        let changed = mem::take(&mut self.changed_vips);
        // Before that everything is still to be judged.
        if changed.is_empty() || !self.is_synced() {
            return;
        }
        let names_one = |slice: &&EndpointSlice| {
            slice.source != SourceCluster::Local
                && slice.endpoints.iter().any(|endpoint| changed.contains(&endpoint.address))
        };
        affected.extend(self.slices.all().filter(names_one).flat_map(owners));
    }

    fn put_node(&mut self, mut node: Node, affected: &mut BTreeSet<NamespacedName>) {
        self.note_flaws(ObjectKind::Node, &node.key, mem::take(&mut node.problems));
        if self.node.as_ref() != Some(&node) {
            self.surroundings.set_node(&node.addresses);
            self.node = Some(node);
            self.node_changed(affected);
        }
    }

    fn node_changed(&mut self, affected: &mut BTreeSet<NamespacedName>) {
        let imports: Vec<_> = self.imports.keys().cloned().collect();
        self.settle_imports(imports, affected);
        self.affect_all(affected);
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
        affected.extend(self.services().map(|service| service.key.clone()));
    }

    fn remove(&mut self, kind: ObjectKind, key: &NamespacedName, affected: &mut BTreeSet<NamespacedName>) {
        match kind {
            ObjectKind::Service => {
                if let Some(former) = self.services.remove(key) {
                    self.changed_vips.extend(self.surroundings.exchange_vips(&former.cluster_ips, &[]));
                    self.service_changed(key, Some(former), Vec::new(), affected);
                }
            }
            ObjectKind::EndpointSlice => {
                self.misnaming.note(key, None);
                let former = self.slices.remove(key, affected);
                if let Some(former) = &former {
                    self.cluster_changed(Some(&former.source), None, affected);
                    self.quotas.release(former);
                    self.refused.put(key.clone(), Vec::new());
                }
                self.slice_changed(former.as_deref(), BTreeSet::new(), affected);
            }
            ObjectKind::ServiceImport => self.change_import(key, None, affected),
            ObjectKind::Node => {
                if self.node.take_if(|node| node.key == *key).is_some() {
                    self.surroundings.set_node(&[]);
                    self.node_changed(affected);
                }
            }
            ObjectKind::ConfigMap => {
                if self.settings_key.take_if(|settings| settings == key).is_some() {
                    // It goes with the rest of what is uninstalled, and who is leaving does not come back for that.
                    let uninstall = self.settings.uninstall.take();
                    self.change_settings(Settings { uninstall, ..Settings::default() }, affected);
                }
            }
            ObjectKind::File => return,
        }
        self.note_flaws(kind, key, Vec::new());
    }

    fn replace(&mut self, kind: ObjectKind, objects: Vec<Object>, affected: &mut BTreeSet<NamespacedName>) {
        let mut gone: BTreeSet<NamespacedName> = match kind {
            ObjectKind::Service => self.services.keys().cloned().collect(),
            ObjectKind::EndpointSlice => self.slices.keys().cloned().collect(),
            ObjectKind::ServiceImport => self.imports.keys().cloned().collect(),
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

    fn note_flaws(&mut self, kind: ObjectKind, key: &NamespacedName, problems: Vec<Problem>) {
        let object = ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() };
        self.flaws.put(object, problems);
    }
}

/// How many endpoints the other slices of the same owner, from the same cluster, have.
fn siblings(slices: &Slices, slice: &EndpointSlice) -> usize {
    let of_owner = |owner: NamespacedName| {
        let others = slices.of(&owner).filter(|other| other.source == slice.source && other.key != slice.key);
        others.map(|other| other.endpoints.len()).sum()
    };
    owners(slice).map(of_owner).max().unwrap_or_default()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
