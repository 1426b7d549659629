//! What is to be written to the catalog's file, a few Services at a time: a step takes less than a change may wait for.

use super::{Catalog, CatalogEndpoint, CatalogFrontend, FrontendName, Line, protocol_name};
use crate::{
    desired::{Changes, Frontend, FrontendKey, Judged, JudgedEndpoint, Resolver},
    model::{Model, NamespacedName, SourceCluster, algorithm_name},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// So much is handed on at once, or less if there is no more.
const BATCH: usize = 128 << 10;

/// A file is made anew once it has so many lines more than twice what it needs.
const SPARE_LINES: usize = 1024;

/// What the file lacks.
#[derive(Debug, Default)]
pub struct Journal {
    progress: Progress,
    /// Services that have changed since they were written.
    stale: BTreeSet<NamespacedName>,
    /// Frontends that went since they were written.
    gone: BTreeSet<FrontendKey>,
    /// Lines of the file.
    lines: usize,
    /// On its way to the file.
    text: Vec<u8>,
}

#[derive(Debug, Default)]
enum Progress {
    /// There is no file, and none is asked for.
    #[default]
    None,
    /// A new one is to be made.
    Due,
    /// It is being made; the last Service that is in it.
    UpTo(Option<NamespacedName>),
    /// It is there.
    Complete,
}

/// Text for the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// It is the first of a new file.
    pub starts: bool,
    /// It is the last before the new file is as good as the old one.
    pub completes: bool,
    pub text: Vec<u8>,
}

impl Journal {
    /// The next batch begins a file anew.
    pub fn start_over(&mut self) {
        self.progress = Progress::Due;
        self.stale.clear();
        self.gone.clear();
        self.text.clear();
    }

    /// Takes note of what the file lacks from now on.
    pub fn note(&mut self, changes: &Changes) {
        let is_written = |service: &NamespacedName| match &self.progress {
            Progress::None | Progress::Due => false,
            Progress::UpTo(last) => last.as_ref().is_some_and(|last| service <= last),
            Progress::Complete => true,
        };
        let services = changes.upserts.values().map(|frontend| &frontend.service);
        let stale: Vec<_> = services.filter(|service| is_written(service)).cloned().collect();
        for key in changes.upserts.keys() {
            self.gone.remove(key);
        }
        if !matches!(self.progress, Progress::None | Progress::Due) {
            self.gone.extend(&changes.removals);
        }
        self.stale.extend(stale);
    }

    /// Whether the file lacks anything.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let is_due = matches!(self.progress, Progress::Due | Progress::UpTo(_));
        is_due || !self.stale.is_empty() || !self.gone.is_empty() || !self.text.is_empty()
    }

    /// Goes on by so many Services. Returns what is to be written next, in this order, once it is enough or there is no
    /// more.
    pub fn proceed(&mut self, model: &Model, resolver: &Resolver, services: usize) -> Option<Batch> {
        let starts = matches!(self.progress, Progress::Due);
        if starts {
            self.lines = 0;
            self.write(&Line::Cluster(resolver.flags().cluster_name.clone()));
            self.progress = Progress::UpTo(None);
            let text = mem::take(&mut self.text);
            return Some(Batch { starts, completes: false, text });
        }
        for key in mem::take(&mut self.gone) {
            self.write(&Line::Gone(FrontendName::of(&key)));
        }
        let mut left = services;
        while left > 0
            && let Some(service) = self.stale.pop_first()
        {
            self.enter(model, resolver, &service);
            left -= 1;
        }
        let mut completes = false;
        if let Progress::UpTo(last) = &self.progress {
            let next: Vec<_> = resolver.services_after(last.as_ref()).take(left).cloned().collect();
            completes = next.len() < left;
            for service in next {
                self.enter(model, resolver, &service);
                self.progress = Progress::UpTo(Some(service));
            }
            if completes {
                self.progress = Progress::Complete;
            }
        }
        if self.text.len() < BATCH && !completes && self.is_behind() && left == 0 {
            return None;
        }
        if self.lines > 2 * resolver.desired().len() + SPARE_LINES {
            self.progress = Progress::Due;
        }
        let text = mem::take(&mut self.text);
        (!text.is_empty() || completes).then_some(Batch { starts, completes, text })
    }

    fn enter(&mut self, model: &Model, resolver: &Resolver, service: &NamespacedName) {
        for (key, judged) in resolver.judged(model, service) {
            if let Some(frontend) = resolver.desired().get(&key) {
                let row = row(&resolver.flags().cluster_name, &key, frontend, &judged);
                self.write(&Line::Frontend(row));
            }
        }
    }

    fn write(&mut self, line: &Line) {
        // Nothing in a line can fail to become JSON, and memory does not refuse to be written to.
        if serde_json::to_writer(&mut self.text, line).is_ok() {
            self.text.push(b'\n');
            self.lines += 1;
        }
    }
}

fn row(cluster: &str, key: &FrontendKey, frontend: &Frontend, judged: &Judged) -> CatalogFrontend {
    let endpoint = |endpoint: &JudgedEndpoint| CatalogEndpoint {
        address: endpoint.address.ip(),
        port: endpoint.address.port(),
        cluster: match &endpoint.source {
            SourceCluster::Local => cluster.to_owned(),
            remote @ (SourceCluster::Remote(_) | SourceCluster::Unknown) => remote.to_string(),
        },
        slice: endpoint.slice.to_string(),
        verdict: endpoint.verdict.as_str().to_owned(),
        slots: u32::try_from(endpoint.slots).unwrap_or(u32::MAX),
        tier: endpoint.tier.map(|tier| tier + 1),
    };
    CatalogFrontend {
        vip: key.vip,
        port: key.port,
        protocol: protocol_name(key.protocol).to_owned(),
        namespace: frontend.service.namespace.to_string(),
        name: frontend.service.name.to_string(),
        port_name: frontend.port_name.to_string(),
        algorithm: algorithm_name(frontend.algorithm).to_owned(),
        packets_only: frontend.packets_only,
        endpoints: judged.endpoints.iter().map(endpoint).collect(),
        active_tier: judged.active_tier.map(|tier| tier + 1),
    }
}

impl Batch {
    /// What the text says.
    pub(in crate::observe) fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        // What was written here can be read.
        self.text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
    }
}

impl FrontendName {
    fn of(key: &FrontendKey) -> Self {
        Self { vip: key.vip, port: key.port, protocol: protocol_name(key.protocol).to_owned() }
    }
}

impl Catalog {
    /// What the lines of a file say, the later ones of a frontend in the place of the earlier. A last line that is not
    /// complete is being written.
    pub(super) fn of_lines(text: &str) -> serde_json::Result<Self> {
        let mut cluster = String::new();
        let mut frontends = BTreeMap::new();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in complete.lines() {
            match serde_json::from_str(line)? {
                Line::Cluster(name) => cluster = name,
                Line::Frontend(frontend) => {
                    let CatalogFrontend { vip, port, protocol, .. } = &frontend;
                    let name = FrontendName { vip: *vip, port: *port, protocol: protocol.clone() };
                    frontends.insert(name, frontend);
                }
                Line::Gone(name) => drop(frontends.remove(&name)),
            }
        }
        Ok(Self { cluster, frontends: frontends.into_values().collect() })
    }
}
