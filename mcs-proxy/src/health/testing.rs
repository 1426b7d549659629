//! Clusters whose pods answer or do not, in a time of our own.

use super::{Endpoint, Findings, Health, Subject, Watch};
use crate::desired::{Family, FrontendKey, Outages};
use mcs_proxy_ebpf::abi::{BackendCounters, Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// A Service with pods in several clusters, and who judges them.
pub(super) struct Stage {
    pub(super) health: Health,
    pub(super) watch: Watch,
    pub(super) counters: BTreeMap<u32, BackendCounters>,
    pub(super) now: Instant,
    pub(super) findings: Findings,
}

pub(super) fn way(cluster: &str) -> (Arc<str>, Family) {
    (Arc::from(cluster), Family::V4)
}

pub(super) fn frontend(n: u8) -> FrontendKey {
    FrontendKey { vip: [10, 13, 0, n].into(), port: 80, protocol: Protocol::Tcp }
}

/// `a` to `z`, and the pod's number.
pub(super) fn pod(cluster: &str, n: u8) -> SocketAddr {
    SocketAddr::from(([10, cluster.as_bytes()[0], 0, n], 8080))
}

/// The backend of a pod in a frontend.
pub(super) fn id(frontend: u8, cluster: &str, n: u8) -> u32 {
    u32::from(frontend) << 16 | u32::from(cluster.as_bytes()[0]) << 8 | u32::from(n)
}

impl Stage {
    /// One frontend with so many pods in each cluster; every cluster is to be drained when it fails.
    pub(super) fn new(clusters: &[(&str, u8)]) -> Self {
        let mut stage = Self::empty(false);
        stage.add(1, clusters);
        stage
    }

    pub(super) fn empty(ejects: bool) -> Self {
        let now = Instant::now();
        Self {
            health: Health::new(WINDOW, ejects, &BTreeSet::new(), now),
            watch: Watch::default(),
            counters: BTreeMap::new(),
            now,
            findings: Findings::default(),
        }
    }

    pub(super) fn add(&mut self, n: u8, clusters: &[(&str, u8)]) {
        let pods = clusters.iter().flat_map(|&(cluster, pods)| (1..=pods).map(move |pod| (cluster, pod)));
        let endpoints = pods.map(|(cluster, pod_number)| Endpoint {
            address: pod(cluster, pod_number),
            cluster: Arc::from(cluster),
            in_slots: true,
            left_out: false,
            backend: Some((id(n, cluster, pod_number), 1)),
        });
        self.watch.frontends.insert(frontend(n), endpoints.collect());
        self.watch.drained_on_failure.extend(clusters.iter().map(|(cluster, _)| Arc::from(*cluster)));
        self.look();
    }

    /// The pod of a frontend has a new flow, answered or not.
    pub(super) fn flow(&mut self, n: u8, cluster: &str, pod: u8, answered: bool) {
        let counters = self.counters.entry(id(n, cluster, pod)).or_default();
        counters.flows = counters.flows.wrapping_add(1);
        if answered {
            counters.first_replies = counters.first_replies.wrapping_add(1);
        }
    }

    /// The same for each of the first so many pods.
    pub(super) fn flows(&mut self, cluster: &str, pods: u8, answered: bool) {
        (1..=pods).for_each(|pod| self.flow(1, cluster, pod, answered));
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Judges, and has the frontends leave out what does not answer, as the daemon does.
    pub(super) fn look(&mut self) {
        let counters = &self.counters;
        let read = |id| Some(counters.get(&id).copied().unwrap_or_default());
        self.findings = self.health.judge(&self.watch, read, self.now);
        let Outages { clusters, endpoints, .. } = &self.findings.outages;
        let is_out = |endpoint: &Endpoint| {
            clusters.contains(&(Arc::clone(&endpoint.cluster), Family::of(endpoint.address.ip())))
                || endpoints.contains_key(&endpoint.address)
        };
        for endpoints in self.watch.frontends.values_mut() {
            let others = endpoints.iter().any(|endpoint| !is_out(endpoint));
            let changed = endpoints.iter().cloned().map(|endpoint| {
                let left_out = is_out(&endpoint) && others;
                Endpoint { in_slots: !left_out, left_out, ..endpoint }
            });
            *endpoints = changed.collect();
        }
    }

    pub(super) fn drained(&self) -> Vec<&str> {
        self.findings.outages.clusters.iter().map(|(cluster, _)| &**cluster).collect()
    }

    pub(super) fn kept(&self) -> Vec<&str> {
        self.findings.kept.iter().map(|(cluster, _)| &**cluster).collect()
    }

    pub(super) fn ejected(&self) -> Vec<SocketAddr> {
        self.findings.outages.endpoints.keys().copied().collect()
    }

    /// Cluster a has silent flows for longer than the window, b answers.
    pub(super) fn drain_a(&mut self) {
        let start = self.now;
        while self.drained().is_empty() {
            self.flows("a", 3, false);
            self.flows("b", 1, true);
            self.wait(WINDOW / 20);
            self.look();
            assert!(self.now - start < 2 * WINDOW);
        }
        assert_eq!(self.drained(), ["a"]);
    }

    /// What the next daemon begins with.
    pub(super) fn restart(&mut self) {
        let subjects: BTreeSet<Subject> = self.health.subjects().cloned().collect();
        self.health = Health::new(WINDOW, false, &subjects, self.now);
        self.look();
    }
}
