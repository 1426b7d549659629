//! Any history of changes, read at any moment, by programs that may have begun before any of the steps.

use super::*;
use crate::desired::Probe;
use proptest::{collection::vec, prelude::*};

/// One state that the cluster is in for a while: for each of six frontends, nothing or slots, serving ones, and who is
/// probed at the how many-eth time.
type State = Vec<Option<(Vec<u8>, Vec<u8>, Option<(u8, u64)>)>>;

fn states() -> impl Strategy<Value = Vec<State>> {
    let frontend = prop::option::weighted(
        0.7,
        (vec(0u8..8, 0..6), vec(0u8..8, 0..3), prop::option::of((0u8..8, 1u64..3))),
    );
    vec(vec(frontend, 6), 1..12)
}

fn to_desired(state: &State) -> Desired {
    (1..)
        .zip(state)
        .filter_map(|(n, frontend)| {
            frontend.as_ref().map(|(slots, serving, probe)| (n, slots, serving, probe))
        })
        .map(|(n, slots, serving, probe)| {
            let probe = probe.map(|(n, number)| Probe { address: address(n), number });
            (key(n), Arc::new(Frontend { probe, ..frontend(slots, serving) }))
        })
        .collect()
}

/// Targets by frontend, as programs see them.
type Seen = BTreeMap<ServiceKey, Vec<Target>>;

fn wanted(desired: &Desired) -> Seen {
    let target = |address: &SocketAddr| (Address::from(address.ip()), Port::new(address.port()));
    desired
        .iter()
        .map(|(key, frontend)| (service_key(key), frontend.slots.iter().map(target).collect()))
        .collect()
}

fn seen(maps: &FakeDataplane) -> Result<Seen, String> {
    let mut seen = Seen::new();
    for key in maps.services() {
        if let Some(view) = maps.lookup(key)? {
            seen.insert(*key, view.slots.iter().map(|slot| (slot.address, slot.port)).collect());
        }
    }
    Ok(seen)
}

/// Programs that began before one of the steps and have seen no grace period since.
#[derive(Default)]
struct Readers {
    views: BTreeMap<ServiceKey, BTreeSet<(u32, u32)>>,
    elements: BTreeMap<u32, mcs_proxy_ebpf::abi::Element>,
}

impl Readers {
    /// A frontend that a program has looked up stays this key's, and what it was seen to point to stays written.
    fn check(&mut self, maps: &FakeDataplane, operation: &Operation) -> Result<(), TestCaseError> {
        if matches!(operation, Operation::GracePeriod | Operation::GracePeriodOver) {
            *self = Self::default();
        }
        let dump = maps.dump().unwrap();
        for (&index, element) in &self.elements {
            prop_assert_eq!(
                &dump.backends[index as usize],
                element,
                "element {} changed: {:?}",
                index,
                operation
            );
        }
        for frontends in self.views.values() {
            for &(frontend, _) in frontends {
                let word = u32::try_from(dump.frontends[frontend as usize]).unwrap();
                let header = dump.backends[word as usize].as_header();
                prop_assert_eq!(header.map(|header| header.frontend), Some(frontend), "{:?}", operation);
            }
        }
        for key in maps.services() {
            prop_assert!(dump.vips.contains_key(&key.vip), "{:?} does not answer: {:?}", key, operation);
            let Some(view) = maps.lookup(key).map_err(TestCaseError::fail)? else { continue };
            let frontends = self.views.entry(*key).or_default();
            frontends.insert((view.frontend, view.extent));
            let indices: BTreeSet<u32> = frontends.iter().map(|(frontend, _)| *frontend).collect();
            prop_assert_eq!(indices.len(), 1, "a key's frontend changed under a reader");
            for index in view.extent..=view.extent + view.header.count {
                self.elements.insert(index, dump.backends[index as usize]);
            }
        }
        Ok(())
    }
}

/// Live extents, ids and indices are nobody else's, and with limbo and the free lists they are everything.
fn check_books(table: &Table) -> Result<(), TestCaseError> {
    let extents = table.entries.values().map(|entry| entry.extent).chain(table.limbo.extents.iter().copied());
    let mut extents: Vec<Extent> = extents.collect();
    extents.sort_unstable();
    for pair in extents.windows(2) {
        prop_assert!(pair[0].first + pair[0].len <= pair[1].first, "{:?} overlap", pair);
    }
    let used: u32 = extents.iter().map(|extent| extent.len).sum();
    prop_assert_eq!(used + table.extents.available(), SIZES.elements - 1);

    let live = table.entries.values().flat_map(|entry| entry.backends.values().map(|backend| backend.id));
    let ids: Vec<u32> = live
        .chain(table.limbo.backends.iter().copied())
        .chain(table.strays.backends.iter().copied())
        .collect();
    prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{:?}", ids);
    prop_assert_eq!(ids.len() + table.backends.available(), SIZES.backend_ids as usize - 1);

    let frontends = table.entries.len() + table.limbo.frontends.len();
    prop_assert_eq!(frontends + table.frontends.available(), SIZES.frontends as usize);
    Ok(())
}

fn check_drained(table: &mut Table, maps: &mut FakeDataplane) -> Result<(), TestCaseError> {
    let plan = table.sync(&Desired::new());
    maps.run(&plan.transaction).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let reclaim = table.reclaim();
    maps.run(&reclaim).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let mark = table.linger_mark();
    let release = table.release_hot(&mark, &BTreeSet::new());
    maps.run(&release).map_err(|error| TestCaseError::fail(error.to_string()))?;
    check_books(table)?;
    prop_assert_eq!(table.extents.longest(), SIZES.elements - 1);
    prop_assert_eq!(table.backends.available(), SIZES.backend_ids as usize - 1);
    prop_assert_eq!(table.frontends.available(), SIZES.frontends as usize);
    let dump = maps.dump().unwrap();
    prop_assert!(dump.vips.is_empty());
    prop_assert!(dump.services.is_empty() && dump.frontends.iter().all(|word| *word == 0));
    prop_assert!(dump.backend_state.iter().all(|state| state.liveness() == Liveness::Gone));
    prop_assert!(dump.hot.iter().all(|bits| *bits == 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_is_fit_to_be_read(states in states(), restart in vec(any::<bool>(), 12), idle in vec(any::<bool>(), 12)) {
        let mut pair = Pair::new();
        let mut readers = Readers::default();
        for (step, state) in states.iter().enumerate() {
            let desired = to_desired(state);
            let before = seen(&pair.maps).map_err(TestCaseError::fail)?;
            let plan = pair.table.sync(&desired);
            let mut after = wanted(&desired);
            for rejected in &plan.rejected {
                let key = service_key(&rejected.key);
                match before.get(&key) {
                    Some(old) => drop(after.insert(key, old.clone())),
                    None => drop(after.remove(&key)),
                }
            }
            for operation in &plan.transaction {
                pair.maps
                    .run(std::slice::from_ref(operation))
                    .map_err(|error| TestCaseError::fail(error.to_string()))?;
                for (key, slots) in seen(&pair.maps).map_err(TestCaseError::fail)? {
                    let fit = before.get(&key) == Some(&slots) || after.get(&key) == Some(&slots);
                    prop_assert!(fit, "{:?} reads {:?} after {:?}", key, slots, operation);
                }
                readers.check(&pair.maps, operation)?;
            }
            prop_assert_eq!(seen(&pair.maps).map_err(TestCaseError::fail)?, after);
            check_books(&pair.table)?;
            if plan.rejected.is_empty() {
                prop_assert_eq!(pair.table.clone().sync(&desired), Plan::default());
            }
            if idle[step] {
                for operation in pair.table.reclaim() {
                    pair.maps
                        .run(std::slice::from_ref(&operation))
                        .map_err(|error| TestCaseError::fail(error.to_string()))?;
                    readers.check(&pair.maps, &operation)?;
                }
                prop_assert_eq!(pair.table.reclaim(), vec![]);
            }
            if restart[step] {
                let recovered = pair.recover();
                let old = std::mem::replace(&mut pair.table, recovered);
                prop_assert_eq!(format!("{:?}", pair.table), format!("{:?}", pair.recover()));
                check_books(&pair.table)?;
                for key in old.keys() {
                    prop_assert_eq!(old.frontend_index(&key), pair.table.frontend_index(&key));
                    let live = |table: &Table| table.backends(&key)
                        .filter(|(_, _, state)| state.liveness() == Liveness::Live).collect::<Vec<_>>();
                    prop_assert_eq!(live(&old), live(&pair.table));
                }
            }
        }
        check_drained(&mut pair.table, &mut pair.maps)?;
    }

    #[test]
    fn a_failure_anywhere_is_got_over(states in states(), fail_at in vec(prop::option::of(0usize..40), 12)) {
        let mut pair = Pair::new();
        for (step, state) in states.iter().enumerate() {
            let desired = to_desired(state);
            if let Some(n) = fail_at[step] {
                pair.maps.fail_at(n);
            }
            let plan = pair.table.sync(&desired);
            let failed = pair.maps.run(&plan.transaction).is_err();
            if failed {
                pair.table = pair.recover();
                check_books(&pair.table)?;
                let again = pair.table.sync(&desired);
                pair.maps.run(&again.transaction).map_err(|error| TestCaseError::fail(error.to_string()))?;
                if again.rejected.is_empty() {
                    prop_assert_eq!(seen(&pair.maps).map_err(TestCaseError::fail)?, wanted(&desired));
                }
            }
            check_books(&pair.table)?;
        }
        pair.maps.fail_at(usize::MAX / 2);
        check_drained(&mut pair.table, &mut pair.maps)?;
    }
}
