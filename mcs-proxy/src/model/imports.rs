use super::{
    EndpointSlice, Ledger, NamespacedName, Node, OptIn, Problem, Service, ServiceImport, SourceCluster,
    import_key, keyed::Keyed,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The ServiceImports, and what becomes of Services by them.
///
/// An import and the Service derived from it are one, served once, by the Service's slices. An address that no derived
/// Service has is the import's own frontend, with the slices that bear its MCS label, but only if the operator named
/// the address's range and nothing else in the cluster has it: whoever may create a ServiceImport must not be able to
/// take another's traffic (CVE-2020-8554).
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// `--serviceimport-cidrs`
    ranges: Vec<IpNet>,
    objects: BTreeMap<NamespacedName, ServiceImport>,
    by_ip: BTreeMap<IpAddr, BTreeSet<NamespacedName>>,
    /// By the key of a derived Service, whether it exists or not.
    by_derived: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// What stands in the place of a Service, or beside them all: see [`Service::governed_by`] and [`import_key`].
    effective: BTreeMap<NamespacedName, Service>,
    problems: Ledger<NamespacedName>,
}

/// What else the cluster has, against which addresses are checked.
pub(super) struct Others<'a, S> {
    pub(super) services: &'a Keyed<Box<Service>>,
    pub(super) node: Option<&'a Node>,
    /// All slices.
    pub(super) slices: S,
}

impl Imports {
    pub(super) fn new(ranges: Vec<IpNet>) -> Self {
        Self { ranges, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn get(&self, key: &NamespacedName) -> Option<&ServiceImport> {
        self.objects.get(key)
    }

    /// The Services, existing or not, that an import was made into.
    pub(super) fn derived_of(&self, key: &NamespacedName) -> BTreeSet<NamespacedName> {
        self.objects.get(key).into_iter().flat_map(derived_keys).collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &NamespacedName> {
        self.objects.keys()
    }

    pub(super) const fn effective(&self) -> &BTreeMap<NamespacedName, Service> {
        &self.effective
    }

    pub(super) const fn problems(&self) -> &Ledger<NamespacedName> {
        &self.problems
    }

    pub(super) const fn problems_mut(&mut self) -> &mut Ledger<NamespacedName> {
        &mut self.problems
    }

    /// Puts an import in (`None`: takes it out). Whether anything changed.
    pub(super) fn put(&mut self, key: &NamespacedName, import: Option<ServiceImport>) -> bool {
        if self.objects.get(key) == import.as_ref() {
            return false;
        }
        if let Some(former) = self.objects.remove(key) {
            forget(&mut self.by_ip, former.service.cluster_ips.iter().copied(), key);
            forget(&mut self.by_derived, derived_keys(&former), key);
        }
        if let Some(import) = import {
            for &ip in &import.service.cluster_ips {
                self.by_ip.entry(ip).or_default().insert(key.clone());
            }
            for derived in derived_keys(&import) {
                self.by_derived.entry(derived).or_default().insert(key.clone());
            }
            self.objects.insert(key.clone(), import);
        }
        true
    }

    /// The imports that have one of these addresses.
    pub(super) fn with_ips(&self, ips: impl IntoIterator<Item = IpAddr>) -> BTreeSet<NamespacedName> {
        if self.by_ip.is_empty() {
            return BTreeSet::new();
        }
        ips.into_iter().filter_map(|ip| self.by_ip.get(&ip)).flatten().cloned().collect()
    }

    /// The imports that were made into this Service.
    pub(super) fn of_derived(&self, service: &NamespacedName) -> BTreeSet<NamespacedName> {
        self.by_derived.get(service).cloned().unwrap_or_default()
    }

    /// Works out anew what an import has for itself. Whether that changed.
    pub(super) fn settle_import<'a>(
        &mut self,
        key: &NamespacedName,
        others: &Others<'a, impl Iterator<Item = &'a EndpointSlice> + Clone>,
    ) -> bool {
        let (own, problems) =
            self.objects.get(key).map(|import| self.standing(import, others)).unwrap_or_default();
        self.problems.put(key.clone(), problems);
        self.put_effective(&import_key(key), own)
    }

    /// Works out anew what a Service is by its imports. Whether that changed.
    pub(super) fn settle_service(&mut self, key: &NamespacedName, service: Option<&Service>) -> bool {
        let governed = service.and_then(|service| {
            let imports = self.by_derived.get(key)?.iter().filter_map(|import| self.objects.get(import));
            let import = imports
                .filter(|import| import.governs(service))
                .min_by_key(|import| (import.service.created, &import.key))?;
            Some(service.governed_by(&import.service))
        });
        self.put_effective(key, governed)
    }

    fn put_effective(&mut self, key: &NamespacedName, service: Option<Service>) -> bool {
        if self.effective.get(key) == service.as_ref() {
            return false;
        }
        match service {
            Some(service) => self.effective.insert(key.clone(), service),
            None => self.effective.remove(key),
        };
        true
    }

    fn standing<'a>(
        &self,
        import: &ServiceImport,
        others: &Others<'a, impl Iterator<Item = &'a EndpointSlice> + Clone>,
    ) -> (Option<Service>, Vec<Problem>) {
        let derived: Vec<&Service> = derived_keys(import)
            .filter_map(|key| others.services.get(&key))
            .filter(|service| import.governs(service))
            .collect();
        let is_derived = |ip: &IpAddr| derived.iter().any(|service| service.cluster_ips.contains(ip));
        let (mut own, mut problems) = (Vec::new(), Vec::new());
        for (i, ip) in import.service.cluster_ips.iter().enumerate().filter(|(_, ip)| !is_derived(ip)) {
            match self.refusal(*ip, others) {
                None => own.push(*ip),
                Some((reason, remedy)) => {
                    problems.push(import.problem(format!("spec.ips[{i}]"), format!("{ip} {reason}"), remedy));
                }
            }
        }
        if derived.is_empty() && import.service.cluster_ips.is_empty() && import.problems.is_empty() {
            let message = "there are none, nor a derived Service with a ClusterIP".to_owned();
            let remedy = "nothing of it is served until its implementation gives it one";
            problems.push(import.problem("spec.ips".into(), message, remedy));
        }
        // What nobody asked us to serve is nobody's concern.
        if import.service.opt_in != OptIn::Annotation {
            problems.clear();
        }
        let service = Service { cluster_ips: own, ..import.service.clone() };
        ((!service.cluster_ips.is_empty()).then_some(service), problems)
    }

    /// Why an address may not be an import's own frontend, and the way out.
    fn refusal<'a>(
        &self,
        ip: IpAddr,
        others: &Others<'a, impl Iterator<Item = &'a EndpointSlice> + Clone>,
    ) -> Option<(String, &'static str)> {
        const ANOTHER: &str = "it is not served there; give the import another address";
        if let Some(service) = others.services.values().find(|service| service.cluster_ips.contains(&ip)) {
            return Some((
                format!("is the ClusterIP of Service {}, not derived from it", service.key),
                ANOTHER,
            ));
        }
        if others.node.is_some_and(|node| node.addresses.contains(&ip)) {
            return Some(("is this node's address".into(), ANOTHER));
        }
        // An import that names the address proves nothing: it may be wrong, or hostile.
        let names = |slice: &&EndpointSlice| {
            slice.source == SourceCluster::Local
                && slice.endpoints.iter().any(|endpoint| endpoint.address == ip)
        };
        if !self.ranges.iter().any(|range| range.contains(&ip)) {
            let remedy =
                "it is not served there; name its range by --serviceimport-cidrs if imports may have it";
            return Some((
                "is outside --serviceimport-cidrs, and no derived Service's ClusterIP".into(),
                remedy,
            ));
        }
        let slice = others.slices.clone().find(names)?;
        Some((format!("is an endpoint's address, by EndpointSlice {}", slice.key), ANOTHER))
    }
}

fn derived_keys(import: &ServiceImport) -> impl Iterator<Item = NamespacedName> {
    import.derived.iter().map(|name| NamespacedName::new(&*import.key.namespace, &**name))
}

fn forget<K: Ord>(
    index: &mut BTreeMap<K, BTreeSet<NamespacedName>>,
    keys: impl Iterator<Item = K>,
    import: &NamespacedName,
) {
    for key in keys {
        if let Some(imports) = index.get_mut(&key) {
            imports.remove(import);
            if imports.is_empty() {
                index.remove(&key);
            }
        }
    }
}

#[cfg(test)]
#[path = "imports_tests.rs"]
mod tests;
