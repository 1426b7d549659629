use super::{Subject, Watch};
use crate::desired::{FrontendKey, Probe};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Who is to be given a flow, by which frontend, and when the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    plans: BTreeMap<Subject, Plan>,
    /// When a frontend was last seen to have new flows: a probe in one that nobody calls finds nothing out.
    used: BTreeMap<FrontendKey, Instant>,
    /// Of the last one.
    number: u64,
}

#[derive(Clone, Debug)]
struct Plan {
    due: Instant,
    current: Option<(FrontendKey, Probe)>,
    /// How many there were.
    made: usize,
}

impl Probes {
    /// The subject is to be probed from then on.
    pub(super) fn expect(&mut self, subject: &Subject, due: Instant) {
        self.plans.insert(subject.clone(), Plan { due, current: None, made: 0 });
    }

    pub(super) fn forget(&mut self, subject: &Subject) {
        self.plans.remove(subject);
    }

    pub(super) fn note_use(&mut self, frontend: FrontendKey, now: Instant) {
        self.used.insert(frontend, now);
    }

    pub(super) fn keep_frontends(&mut self, exists: impl Fn(&FrontendKey) -> bool) {
        self.used.retain(|key, _| exists(key));
    }

    /// Withdraws probes whose window is over, taken or not, and makes the next ones. One for each subject, and one for each
    /// frontend: who finds none free waits.
    pub(super) fn update<'a>(
        &mut self,
        watch: &Watch,
        subjects: impl Iterator<Item = &'a Subject>,
        window: Duration,
        now: Instant,
    ) -> BTreeMap<FrontendKey, Probe> {
        let mut due: Vec<(Instant, &Subject)> = Vec::new();
        for subject in subjects {
            let Some(plan) = self.plans.get_mut(subject) else { continue };
            if plan.due <= now {
                plan.current = None;
                due.push((plan.due, subject));
            }
        }
        // Who has waited longest comes first.
        due.sort_unstable();
        let current = self.plans.values().filter_map(|plan| plan.current);
        let mut probes: BTreeMap<FrontendKey, Probe> = current.collect();
        for (_, subject) in due {
            let taken: BTreeSet<FrontendKey> = probes.keys().copied().collect();
            let Some(plan) = self.plans.get_mut(subject) else { continue };
            let Some((key, address)) = target(watch, subject, plan.made, &self.used, &taken) else {
                continue;
            };
            self.number += 1;
            let probe = Probe { address, number: self.number };
            *plan = Plan { due: now + window, current: Some((key, probe)), made: plan.made + 1 };
            probes.insert(key, probe);
        }
        probes
    }
}

/// Of the frontends that leave the subject out, the one with the latest flows; of its endpoints there, each in its turn.
fn target(
    watch: &Watch,
    subject: &Subject,
    turn: usize,
    used: &BTreeMap<FrontendKey, Instant>,
    taken: &BTreeSet<FrontendKey>,
) -> Option<(FrontendKey, SocketAddr)> {
    let targets = |key: &FrontendKey| {
        let endpoints = watch.frontends.get(key).into_iter().flat_map(|endpoints| endpoints.iter());
        endpoints
            .filter(|endpoint| endpoint.left_out && subject.is_about(&endpoint.cluster, endpoint.address))
            .map(|endpoint| endpoint.address)
            .collect::<Vec<_>>()
    };
    let free = watch.frontends.keys().filter(|key| !taken.contains(key) && !targets(key).is_empty());
    let key = free.max_by_key(|key| used.get(key))?;
    let targets = targets(key);
    targets.get(turn % targets.len()).map(|&address| (*key, address))
}
