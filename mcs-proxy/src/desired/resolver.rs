use super::{
    Context, Desired, Flags, Frontend, FrontendKey, Here, Judged, JudgedEndpoint, Outages,
    eligibility::Candidate,
    frontends::{Decided, Decision, decide},
    opt_in::reference,
    tiers::{Active, Standing},
};
use crate::model::{Ledger, Model, NamespacedName, Problem, ProblemChanges};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

/// Keeps [`Desired`] for all Services, incrementally.
#[derive(Debug)]
pub struct Resolver {
    flags: Flags,
    desired: Desired,
    /// Who claims a VIP and port; the first one has it. All but the first are the exception.
    claims: BTreeMap<FrontendKey, Claims>,
    /// What Services claim. Those that claim nothing are absent.
    services: BTreeMap<NamespacedName, Outcome>,
    outages: Arc<Outages>,
    /// Of Services with tiers.
    standings: BTreeMap<NamespacedName, Standings>,
    /// Services with a tier that is to be returned to, and when.
    dues: BTreeMap<NamespacedName, Instant>,
    /// When something was decided last.
    decided: Instant,
    /// Endpoints that take new flows, of all frontends.
    used: usize,
    /// Services decided about so far.
    #[cfg(test)]
    computed: usize,
    /// What is wrong with the Services themselves.
    troubles: Ledger<NamespacedName>,
    /// What is wrong with those who lost a claim, by what they claim.
    lost: Ledger<FrontendKey>,
}

/// The frontends of a Service, in order.
type Computed = Vec<(FrontendKey, Arc<Frontend>)>;

/// In order. Nearly always one.
type Claims = Vec<Claim>;

type Standings = BTreeMap<FrontendKey, Standing>;

const NONE: &Standings = &Standings::new();

/// In the order of precedence: the older Service first, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: i64,
    service: NamespacedName,
}

#[derive(Debug, Default)]
struct Outcome {
    created: i64,
    /// In order.
    claims: Box<[FrontendKey]>,
}

/// What differs from the [`Desired`] before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New frontends and changed ones.
    pub upserts: Desired,
    /// Disjoint with `upserts`.
    pub removals: BTreeSet<FrontendKey>,
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { upserts, removals } = self;
        upserts.is_empty() && removals.is_empty()
    }
}

impl Resolver {
    #[must_use]
    pub fn new(flags: Flags) -> Self {
        Self {
            flags,
            desired: Desired::new(),
            claims: BTreeMap::new(),
            services: BTreeMap::new(),
            outages: Arc::default(),
            standings: BTreeMap::new(),
            dues: BTreeMap::new(),
            decided: Instant::now(),
            used: 0,
            #[cfg(test)]
            computed: 0,
            troubles: Ledger::default(),
            lost: Ledger::default(),
        }
    }

    #[must_use]
    pub const fn flags(&self) -> &Flags {
        &self.flags
    }

    /// What the maps should hold now.
    #[must_use]
    pub const fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What a Service claims, whether it has it or another one has.
    pub fn claims_of(&self, service: &NamespacedName) -> impl Iterator<Item = &FrontendKey> {
        self.services.get(service).into_iter().flat_map(|outcome| &outcome.claims)
    }

    /// Services that claim a frontend, in order, that come after one.
    pub fn services_after<'a>(
        &'a self,
        last: Option<&'a NamespacedName>,
    ) -> impl Iterator<Item = &'a NamespacedName> + use<'a> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.services.range::<NamespacedName, _>((after, Bound::Unbounded)).map(|(service, _)| service)
    }

    #[cfg(test)]
    pub(crate) const fn computed(&self) -> usize {
        self.computed
    }

    /// How many endpoints take new flows, each counted once a frontend.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Puts what does not answer in the place of what did not, and returns that. The Services that this concerns are for the
    /// caller to find, and to update.
    pub fn exchange_outages(&mut self, outages: Arc<Outages>) -> Arc<Outages> {
        std::mem::replace(&mut self.outages, outages)
    }

    /// Whether its cluster is known not to answer, whatever comes of that.
    #[must_use]
    pub fn is_out(&self, endpoint: &JudgedEndpoint) -> bool {
        self.outages.has(&endpoint.source, endpoint.address.ip(), &self.flags.cluster_name)
    }

    /// When to call [`Self::update`] even if nothing changes.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.dues.values().copied().min()
    }

    /// What became of every endpoint of one Service, by frontend; frontends that it lost to another Service are not
    /// among them.
    #[must_use]
    pub fn judged(&self, model: &Model, service: &NamespacedName) -> Vec<(FrontendKey, Judged)> {
        let Some((_, decision)) = self.decide(model, service, self.decided) else { return Vec::new() };
        let has =
            |key: &FrontendKey| self.desired.get(key).is_some_and(|frontend| frontend.service == *service);
        decision
            .frontends
            .into_iter()
            .filter(|(key, _)| has(key))
            .map(|(key, Decided { candidates, standing, .. })| {
                let active_tier = standing.and_then(|standing| match standing.active() {
                    Active::Tier(tier) => Some(tier),
                    Active::Pooled => None,
                });
                (key, Judged { endpoints: candidates.iter().map(Candidate::judged).collect(), active_tier })
            })
            .collect()
    }

    /// What is wrong with Services that are ours, beyond what the [`Model`] tells.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.troubles.iter().chain(self.lost.iter())
    }

    /// How [`Self::problems`] changed since the last call.
    pub fn take_problem_changes(&mut self) -> [ProblemChanges; 2] {
        [self.troubles.take_changes(), self.lost.take_changes()]
    }

    /// Recomputes the `affected` Services and those whose time has come, and no others unless they take over what one
    /// of those gave up.
    pub fn update(&mut self, model: &Model, affected: &BTreeSet<NamespacedName>, now: Instant) -> Changes {
        self.decided = now;
        let due = self.dues.iter().filter(|(_, due)| **due <= now).map(|(service, _)| service.clone());
        let affected: BTreeSet<NamespacedName> = affected.iter().cloned().chain(due).collect();
        let mut fresh = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for service in &affected {
            let (created, frontends, problems) = self.compute(model, service);
            let claims = frontends.iter().map(|(key, _)| *key).collect();
            touched.extend(self.restate(service, Outcome { created, claims }));
            self.troubles.put(service.clone(), problems);
            fresh.insert(service.clone(), frontends);
        }
        let changes = self.settle(model, &touched, fresh);
        for key in touched {
            self.lost.put(key, self.losers(model, key));
        }
        changes
    }

    fn decide<'a>(
        &self,
        model: &'a Model,
        key: &NamespacedName,
        now: Instant,
    ) -> Option<(i64, Decision<'a>)> {
        let service = model.service(key)?;
        let context = Context {
            flags: &self.flags,
            here: Here {
                node: &self.flags.node_name,
                zone: model.node().and_then(|node| node.zone.as_deref()),
            },
            surroundings: model.surroundings(),
            settings: model.settings(),
            clusters: model.clusters(),
            mode: model.mode(),
            outages: &self.outages,
            standings: self.standings.get(key).unwrap_or(NONE),
            now,
        };
        Some((service.created, decide(service, model.slices_of(key), &context)))
    }

    fn compute(&mut self, model: &Model, key: &NamespacedName) -> (i64, Computed, Vec<Problem>) {
        #[cfg(test)]
        {
            self.computed += 1;
        }
        let (created, Decision { frontends, problems }) =
            self.decide(model, key, self.decided).unwrap_or_default();
        let mut computed = Vec::with_capacity(frontends.len());
        let mut standings = Standings::new();
        for (frontend_key, Decided { frontend, standing, .. }) in frontends {
            computed.push((frontend_key, Arc::new(frontend)));
            standings.extend(standing.map(|standing| (frontend_key, standing)));
        }
        let due = standings.values().filter_map(|standing| standing.due(self.flags.tier_hold)).min();
        replace(&mut self.dues, key, due);
        replace(&mut self.standings, key, Some(standings).filter(|standings| !standings.is_empty()));
        (created, computed, problems)
    }

    /// Puts a Service's new claims in the place of its old ones; returns both.
    fn restate(&mut self, service: &NamespacedName, outcome: Outcome) -> BTreeSet<FrontendKey> {
        let former = self.services.remove(service).unwrap_or_default();
        let claim = |created| Claim { created, service: service.clone() };
        for key in &former.claims {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.retain(|known| *known != claim(former.created));
                if claims.is_empty() {
                    self.claims.remove(key);
                }
            }
        }
        for key in &outcome.claims {
            let claims = self.claims.entry(*key).or_default();
            if let Err(place) = claims.binary_search(&claim(outcome.created)) {
                claims.reserve_exact(1);
                claims.insert(place, claim(outcome.created));
            }
        }
        let touched = former.claims.iter().chain(&outcome.claims).copied().collect();
        if !outcome.claims.is_empty() {
            self.services.insert(service.clone(), outcome);
        }
        touched
    }

    /// Brings `desired` in line with the claims on the `touched` keys. `fresh`: the frontends computed so far.
    fn settle(
        &mut self,
        model: &Model,
        touched: &BTreeSet<FrontendKey>,
        mut fresh: BTreeMap<NamespacedName, Computed>,
    ) -> Changes {
        let mut changes = Changes::default();
        for &key in touched {
            let Some(Claim { service: winner, .. }) =
                self.claims.get(&key).and_then(|claims| claims.first()).cloned()
            else {
                if let Some(former) = self.desired.remove(&key) {
                    self.used -= former.used;
                    changes.removals.insert(key);
                }
                continue;
            };
            if !fresh.contains_key(&winner) {
                if self.desired.get(&key).is_some_and(|frontend| frontend.service == winner) {
                    continue;
                }
                let computed = self.compute(model, &winner).1;
                fresh.insert(winner.clone(), computed);
            }
            let current = self.desired.get(&key);
            let found =
                fresh.get(&winner).and_then(|frontends| frontends.iter().find(|(known, _)| *known == key));
            if let Some((_, frontend)) = found
                && current != Some(frontend)
            {
                self.used = self.used - current.map_or(0, |frontend| frontend.used) + frontend.used;
                self.desired.insert(key, Arc::clone(frontend));
                changes.upserts.insert(key, Arc::clone(frontend));
            }
        }
        changes
    }

    fn losers(&self, model: &Model, key: FrontendKey) -> Vec<Problem> {
        let mut claims = self.claims.get(&key).into_iter().flatten();
        let Some(winner) = claims.next() else { return Vec::new() };
        let loser = |claim: &Claim| {
            Some(Problem {
                object: reference(model.service(&claim.service)?),
                field: "spec.clusterIPs".into(),
                message: format!(
                    "{key} is also claimed by {}, which comes first (by age, then name)",
                    winner.service
                ),
                remedy: "it is not served there; give one of them another address or port".into(),
            })
        };
        claims.filter_map(loser).collect()
    }
}

fn replace<V>(map: &mut BTreeMap<NamespacedName, V>, key: &NamespacedName, value: Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
