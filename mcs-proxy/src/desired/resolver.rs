use super::{Desired, Flags, Frontend, FrontendKey, frontends_of, opt_in::reference};
use crate::model::{Model, NamespacedName, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// Keeps [`Desired`] for all Services, incrementally.
#[derive(Debug)]
pub struct Resolver {
    flags: Flags,
    desired: Desired,
    /// Who claims a VIP and port; the first one has it. All but the first are the exception.
    claims: BTreeMap<FrontendKey, BTreeSet<Claim>>,
    /// What Services claim and what is wrong with them. Those without either are absent.
    services: BTreeMap<NamespacedName, Standing>,
    /// Keys with more than one claim.
    contested: BTreeSet<FrontendKey>,
    /// What is wrong with those who lost a claim; a function of `contested` and `claims`.
    lost: Vec<Problem>,
}

/// In the order of precedence: the older Service first, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: i64,
    service: NamespacedName,
}

#[derive(Debug, Default)]
struct Standing {
    created: i64,
    claims: BTreeSet<FrontendKey>,
    problems: Vec<Problem>,
}

/// What differs from the [`Desired`] before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New frontends and changed ones.
    pub upserts: BTreeMap<FrontendKey, Frontend>,
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
    pub const fn new(flags: Flags) -> Self {
        Self {
            flags,
            desired: Desired::new(),
            claims: BTreeMap::new(),
            services: BTreeMap::new(),
            contested: BTreeSet::new(),
            lost: Vec::new(),
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

    /// What is wrong with Services that are ours, beyond what the [`Model`] tells.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.services.values().flat_map(|standing| &standing.problems).chain(&self.lost)
    }

    /// Recomputes the `affected` Services, and no others unless they take over what an affected one gave up.
    pub fn update(&mut self, model: &Model, affected: &BTreeSet<NamespacedName>) -> Changes {
        let mut fresh = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for service in affected {
            let (created, frontends, problems) = self.compute(model, service);
            let claims = frontends.keys().copied().collect();
            touched.extend(self.restate(service, Standing { created, claims, problems }));
            fresh.insert(service.clone(), frontends);
        }
        let changes = self.settle(model, &touched, fresh);
        let contests: Vec<_> = touched.iter().filter(|key| self.note_contest(**key)).collect();
        if !contests.is_empty() {
            self.lost = self.contested.iter().flat_map(|key| self.losers(model, *key)).collect();
        }
        changes
    }

    fn compute(
        &self,
        model: &Model,
        key: &NamespacedName,
    ) -> (i64, BTreeMap<FrontendKey, Frontend>, Vec<Problem>) {
        let Some(service) = model.service(key) else { return Default::default() };
        let (frontends, problems) = frontends_of(service, model.slices_of(key), &self.flags);
        (service.created, frontends.into_iter().collect(), problems)
    }

    /// Puts a Service's new claims in the place of its old ones; returns both.
    fn restate(&mut self, service: &NamespacedName, standing: Standing) -> BTreeSet<FrontendKey> {
        let former = self.services.remove(service).unwrap_or_default();
        let claim = |created| Claim { created, service: service.clone() };
        for key in &former.claims {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.remove(&claim(former.created));
                if claims.is_empty() {
                    self.claims.remove(key);
                }
            }
        }
        for key in &standing.claims {
            self.claims.entry(*key).or_default().insert(claim(standing.created));
        }
        let touched = former.claims.union(&standing.claims).copied().collect();
        if !standing.claims.is_empty() || !standing.problems.is_empty() {
            self.services.insert(service.clone(), standing);
        }
        touched
    }

    /// Brings `desired` in line with the claims on the `touched` keys. `fresh`: the frontends computed so far.
    fn settle(
        &mut self,
        model: &Model,
        touched: &BTreeSet<FrontendKey>,
        mut fresh: BTreeMap<NamespacedName, BTreeMap<FrontendKey, Frontend>>,
    ) -> Changes {
        let mut changes = Changes::default();
        for &key in touched {
            let Some(winner) = self.claims.get(&key).and_then(BTreeSet::first) else {
                if self.desired.remove(&key).is_some() {
                    changes.removals.insert(key);
                }
                continue;
            };
            let current = self.desired.get(&key);
            if !fresh.contains_key(&winner.service) {
                if current.is_some_and(|frontend| frontend.service == winner.service) {
                    continue;
                }
                fresh.insert(winner.service.clone(), self.compute(model, &winner.service).1);
            }
            let frontend = fresh.get_mut(&winner.service).and_then(|frontends| frontends.remove(&key));
            if let Some(frontend) = frontend
                && current != Some(&frontend)
            {
                self.desired.insert(key, frontend.clone());
                changes.upserts.insert(key, frontend);
            }
        }
        changes
    }

    /// Whether the key is, or was until now, claimed by several.
    fn note_contest(&mut self, key: FrontendKey) -> bool {
        if self.claims.get(&key).is_some_and(|claims| claims.len() > 1) {
            self.contested.insert(key);
            true
        } else {
            self.contested.remove(&key)
        }
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

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
