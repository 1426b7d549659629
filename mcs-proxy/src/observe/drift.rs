//! Whether the maps hold what they should, frontend by frontend.

use super::inventory::{Inventory, Item};
use crate::{
    dataplane::pins::FrontendDump,
    desired::FrontendKey,
    explain::{Held, Wanted, differences},
    model::algorithm_name,
};
use mcs_proxy_ebpf::abi::Algorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most frontends that are told of by name.
const NAMED: usize = 100;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// Frontends that were compared.
    pub frontends: usize,
    /// Of these, those that the maps do not hold.
    pub missing: usize,
    /// Those that the maps hold otherwise.
    pub different: usize,
    /// Frontends in the maps that should not be there.
    pub stray: usize,
    /// The first hundred of these, by object.
    pub objects: Vec<DriftedObject>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftedObject {
    /// `NAMESPACE/NAME` of the Service; empty for a stray.
    pub service: String,
    /// `TCP 10.13.181.116:80`.
    pub frontend: String,
    /// `missing`, `different` or `stray`.
    pub what: String,
    /// In what, in words.
    pub says: String,
}

impl Drift {
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.count() == 0
    }

    /// Frontends that are not as they should be.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.missing + self.different + self.stray
    }

    /// Holds the maps against what should be in them.
    #[must_use]
    pub fn between(wanted: &Inventory, dump: &FrontendDump) -> Self {
        let mut drift = Self { frontends: wanted.len(), ..Self::default() };
        let held: BTreeSet<FrontendKey> = dump.frontends.iter().map(|frontend| frontend.key).collect();
        for (key, item) in wanted.frontends().filter(|(key, _)| !held.contains(key)) {
            drift.missing += 1;
            drift.name(item, key, "missing", "the maps do not hold it".into());
        }
        for dumped in &dump.frontends {
            let key = &dumped.key;
            match wanted.get(key) {
                Some(item) => {
                    let differences = differences(&should(item), &Held::from(dumped));
                    if !differences.is_empty() {
                        drift.different += 1;
                        drift.name(item, key, "different", differences.join(", "));
                    }
                }
                None => {
                    drift.stray += 1;
                    drift.add(String::new(), key.to_string(), "stray", "it should not be there".into());
                }
            }
        }
        for key in &dump.unreadable {
            drift.stray += 1;
            drift.add(String::new(), format!("{key:?}"), "stray", "it leads nowhere".into());
        }
        drift
    }

    fn name(&mut self, item: &Item, key: &FrontendKey, what: &str, says: String) {
        self.add(item.service().to_string(), key.to_string(), what, says);
    }

    fn add(&mut self, service: String, frontend: String, what: &str, says: String) {
        if self.objects.len() < NAMED {
            self.objects.push(DriftedObject { service, frontend, what: what.to_owned(), says });
        }
    }
}

fn should(item: &Item) -> Wanted<'_> {
    // Maglev's table has so many entries for each that only it can count them.
    let counts = item.algorithm.is_some_and(|algorithm| algorithm != Algorithm::Maglev);
    Wanted {
        algorithm: item.algorithm.map(algorithm_name).unwrap_or_default(),
        packets_only: item.packets_only,
        backends: item.targets().map(|(address, slots)| (address, counts.then_some(slots))).collect(),
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
