//! Which clusters, and which single endpoints, do not answer: what the dataplane sees, and nobody else can know.
//!
//! Evidence is what the programs count for every backend: new flows, and flows whose first answer has come by
//! (`backend_counters`). A SYN that is sent again is no new flow, and a RST is an answer. Datagrams need no answer, and the
//! socket path sees none, so neither counts; but what is drained takes no flow of theirs either. What a network policy drops
//! on its way looks the same as what nobody answers.
//!
//! A cluster fails that has had no answer for the window and, before it began, at least three new flows, to three pods (or
//! all it has); each family by itself, for the ways differ. It is drained if the settings want that and another cluster,
//! to which one of its Services can turn, does not look as if it failed too; it comes back with the first answer. An
//! endpoint fails likewise, on its own, while others of its cluster answer. Every window one new flow is let through to what
//! is drained, to one of its endpoints after the other: a slot that one flow alone may take, so it is never more.
//!
//! Nothing here does I/O or knows a clock: [`Health::judge`] is fed readings.

mod evidence;
mod probes;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::desired::{Family, FrontendKey, Outages};
use evidence::{Evidence, WayState};
use mcs_proxy_ebpf::abi::BackendCounters;
use probes::Probes;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Fewer unanswered flows say nothing, nor do fewer pods, unless a cluster has no more.
const ENOUGH: usize = 3;

/// A cluster by one family.
type Way = (Arc<str>, Family);

/// What is to be looked at: frontends of TCP, and who of their endpoints is which backend.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub frontends: BTreeMap<FrontendKey, Arc<[Endpoint]>>,
    /// Clusters that are to be drained when they fail.
    pub drained_on_failure: BTreeSet<Arc<str>>,
}

/// An endpoint of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub cluster: Arc<str>,
    /// It takes new flows.
    pub in_slots: bool,
    /// It is left out because it, or its cluster, does not answer.
    pub left_out: bool,
    /// Its id and generation, if the maps have it.
    pub backend: Option<(u32, u32)>,
}

/// Something that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Cluster(Way),
    Endpoint(Arc<str>, SocketAddr),
}

/// What a judgement has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub outages: Outages,
    /// Clusters that fail and are to be drained, but nothing else could take their flows.
    pub kept: BTreeSet<Way>,
}

/// What is known, from one judgement to the next.
#[derive(Clone, Debug)]
pub struct Health {
    window: Duration,
    /// Whether single endpoints are judged.
    ejects: bool,
    /// By backend id.
    counters: BTreeMap<u32, Known>,
    /// By cluster and address, whatever frontends they have.
    evidence: BTreeMap<(Arc<str>, SocketAddr), Evidence>,
    /// What does not answer, and since when.
    outages: BTreeMap<Subject, Instant>,
    probes: Probes,
}

/// The last reading of a backend's counters.
#[derive(Clone, Copy, Debug)]
struct Known {
    generation: u32,
    flows: u32,
    first_replies: u32,
}

impl Health {
    /// `outages`: what an earlier daemon has left; it is tried at once, and given no flows until it answers.
    #[must_use]
    pub fn new(window: Duration, ejects: bool, outages: &BTreeSet<Subject>, now: Instant) -> Self {
        let mut probes = Probes::default();
        outages.iter().for_each(|subject| probes.expect(subject, now));
        Self {
            window,
            ejects,
            counters: BTreeMap::new(),
            evidence: BTreeMap::new(),
            outages: outages.iter().map(|subject| (subject.clone(), now)).collect(),
            probes,
        }
    }

    /// Whether anything is known not to answer.
    #[must_use]
    pub fn has_outages(&self) -> bool {
        !self.outages.is_empty()
    }

    /// What is known not to answer.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.outages.keys()
    }

    /// What is known before anything is judged.
    #[must_use]
    pub fn known(&self) -> Findings {
        Findings { outages: self.outages(), kept: BTreeSet::new() }
    }

    /// Takes new readings in. `read`: the counters of a backend id, now.
    pub fn judge(
        &mut self,
        watch: &Watch,
        mut read: impl FnMut(u32) -> Option<BackendCounters>,
        now: Instant,
    ) -> Findings {
        self.take_in(watch, &mut read, now);
        let ways = self.ways(now);
        self.end_outages(watch);
        let kept = self.begin_cluster_outages(watch, &ways, now);
        if self.ejects {
            self.begin_endpoint_outages(&ways, now);
        }
        self.findings(watch, kept, now)
    }

    /// Adds what was counted since the last reading to the evidence. Of a backend that is new here nothing is known but where
    /// its counters stand: what it had before this daemon began counts for nothing.
    fn take_in(
        &mut self,
        watch: &Watch,
        read: &mut impl FnMut(u32) -> Option<BackendCounters>,
        now: Instant,
    ) {
        let mut known = BTreeMap::new();
        let mut evidence = BTreeMap::new();
        for (key, endpoints) in &watch.frontends {
            for endpoint in endpoints.iter() {
                let subject = (Arc::clone(&endpoint.cluster), endpoint.address);
                let evidence = evidence
                    .entry(subject)
                    .or_insert_with_key(|subject| self.evidence.remove(subject).unwrap_or_default());
                if endpoint.in_slots {
                    evidence.in_slots = Some(now);
                }
                let Some((id, generation)) = endpoint.backend else { continue };
                let Some(counters) = read(id) else { continue };
                let (flows, replies) =
                    self.counters.get(&id).map_or((0, 0), |known| known.since(generation, &counters));
                let BackendCounters { flows: all, first_replies, .. } = counters;
                known.insert(id, Known { generation, flows: all, first_replies });
                evidence.note(flows, replies, now);
                if flows > 0 {
                    self.probes.note_use(*key, now);
                }
            }
        }
        // What takes no new flows is not to be judged by old ones when it does again.
        let idle = evidence.values_mut().filter(|evidence| evidence.in_slots != Some(now));
        idle.for_each(Evidence::forget_flows);
        self.probes.keep_frontends(|key| watch.frontends.contains_key(key));
        (self.counters, self.evidence) = (known, evidence);
    }

    /// How every cluster does.
    fn ways(&self, now: Instant) -> BTreeMap<Way, WayState> {
        let mut ways: BTreeMap<Way, WayState> = BTreeMap::new();
        for ((cluster, address), evidence) in &self.evidence {
            let way = (Arc::clone(cluster), Family::of(address.ip()));
            ways.entry(way).or_default().add(address.ip(), evidence, now, self.window);
        }
        ways
    }

    /// What has answered since is back; what nobody wants to know of any more is forgotten.
    fn end_outages(&mut self, watch: &Watch) {
        let Self { outages, evidence, probes, ejects, .. } = self;
        let mut back = Vec::new();
        outages.retain(|subject, since| {
            let is_wanted = match subject {
                Subject::Cluster((cluster, _)) => watch.drained_on_failure.contains(cluster),
                Subject::Endpoint(..) => *ejects,
            };
            let has_answered = evidence
                .iter()
                .any(|(key, evidence)| subject.is_about(&key.0, key.1) && evidence.answered >= Some(*since));
            if has_answered || !is_wanted {
                back.push(subject.clone());
            }
            is_wanted && !has_answered
        });
        for subject in back {
            probes.forget(&subject);
            let of_it = evidence.iter_mut().filter(|(key, _)| subject.is_about(&key.0, key.1));
            of_it.for_each(|(_, evidence)| evidence.forget_flows());
        }
    }

    /// Returns those that fail, but have to go on.
    fn begin_cluster_outages(
        &mut self,
        watch: &Watch,
        ways: &BTreeMap<Way, WayState>,
        now: Instant,
    ) -> BTreeSet<Way> {
        let mut kept = BTreeSet::new();
        let failing = ways.iter().filter(|(way, state)| {
            watch.drained_on_failure.contains(&way.0)
                && !self.outages.contains_key(&Subject::Cluster((*way).clone()))
                && state.fails(now, self.window)
        });
        let failing: Vec<Way> = failing.map(|(way, _)| way.clone()).collect();
        for way in failing {
            let is_usable = |other: &Way| {
                other != &way
                    && !self.outages.contains_key(&Subject::Cluster(other.clone()))
                    && ways.get(other).is_some_and(|state| !state.is_doubtful())
            };
            if has_alternative(watch, &way, is_usable) {
                let subject = Subject::Cluster(way);
                self.probes.expect(&subject, now + self.window);
                self.outages.insert(subject, now);
            } else {
                kept.insert(way);
            }
        }
        kept
    }

    /// Only where others of the same cluster answer: when none does, it is the cluster that fails.
    fn begin_endpoint_outages(&mut self, ways: &BTreeMap<Way, WayState>, now: Instant) {
        for ((cluster, address), evidence) in &self.evidence {
            let subject = Subject::Endpoint(Arc::clone(cluster), *address);
            let way = (Arc::clone(cluster), Family::of(address.ip()));
            let others_answer = || ways.get(&way).is_some_and(|state| state.answers(now, self.window));
            if evidence.fails(now, self.window) && !self.outages.contains_key(&subject) && others_answer() {
                self.probes.expect(&subject, now + self.window);
                self.outages.insert(subject, now);
            }
        }
    }

    fn findings(&mut self, watch: &Watch, kept: BTreeSet<Way>, now: Instant) -> Findings {
        let mut outages = self.outages();
        outages.probes = self.probes.update(watch, self.outages.keys(), self.window, now);
        Findings { outages, kept }
    }

    /// Without the probes.
    fn outages(&self) -> Outages {
        let mut outages = Outages::default();
        for subject in self.outages.keys() {
            match subject {
                Subject::Cluster(way) => drop(outages.clusters.insert(way.clone())),
                Subject::Endpoint(cluster, address) => {
                    outages.endpoints.insert(*address, Arc::clone(cluster));
                }
            }
        }
        outages
    }
}

/// Whether any Service of a cluster can turn to such a one.
fn has_alternative(watch: &Watch, way: &Way, is_such: impl Fn(&Way) -> bool) -> bool {
    let way_of = |endpoint: &Endpoint| (Arc::clone(&endpoint.cluster), Family::of(endpoint.address.ip()));
    watch.frontends.values().any(|endpoints| {
        endpoints.iter().any(|endpoint| way_of(endpoint) == *way)
            && endpoints.iter().any(|endpoint| !endpoint.left_out && is_such(&way_of(endpoint)))
    })
}

impl Subject {
    /// Whether what is known of this endpoint is known of the subject.
    fn is_about(&self, cluster: &str, address: SocketAddr) -> bool {
        match self {
            Self::Cluster((name, family)) => **name == *cluster && *family == Family::of(address.ip()),
            Self::Endpoint(name, endpoint) => **name == *cluster && *endpoint == address,
        }
    }
}

impl Known {
    /// New flows and first replies. Counters wrap, and a difference that is no count means that they are another's: those of
    /// an id that has passed on.
    fn since(&self, generation: u32, counters: &BackendCounters) -> (u32, u32) {
        let flows = counters.flows.wrapping_sub(self.flows);
        let replies = counters.first_replies.wrapping_sub(self.first_replies);
        let is_same = generation == self.generation && flows <= u32::MAX / 2 && replies <= u32::MAX / 2;
        if is_same { (flows, replies) } else { (0, 0) }
    }
}
