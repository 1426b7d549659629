use super::*;
use crate::{
    dataplane::{Dataplane, Dump, FlowRef, fake::FakeDataplane, fake::View},
    desired::Frontend,
    model::NamespacedName,
};
use mcs_proxy_ebpf::abi::{Direction, Protocol};

mod properties;
mod whole;

const SIZES: MapSizes = MapSizes {
    frontends: 4,
    elements: 32,
    backend_ids: 12,
    flows: 8,
    transient: 8,
    affinity: 8,
    fragments: 8,
    sockets: 8,
};

fn key(n: u8) -> FrontendKey {
    FrontendKey { vip: [10, 13, 0, n].into(), port: 80, protocol: Protocol::Tcp }
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 10, 0, n], 8080))
}

fn target(n: u8) -> Target {
    (Address::from(address(n).ip()), Port::new(8080))
}

fn frontend(slots: &[u8], serving: &[u8]) -> Frontend {
    Frontend {
        service: NamespacedName::new("default", "serve"),
        port_name: "".into(),
        algorithm: Algorithm::RoundRobin,
        affinity_seconds: 0,
        packets_only: false,
        probe: None,
        watched: Vec::new(),
        dropped: Vec::new(),
        owns_vip: true,
        slots: slots.iter().copied().map(address).collect(),
        serving: serving.iter().copied().map(address).collect(),
        used: 0,
        fingerprint: 0,
    }
}

fn desired(frontends: &[(u8, &[u8], &[u8])]) -> Desired {
    frontends.iter().map(|(n, slots, serving)| (key(*n), Arc::new(frontend(slots, serving)))).collect()
}

/// A table and the maps it writes.
struct Pair {
    table: Table,
    maps: FakeDataplane,
}

impl Pair {
    fn new() -> Self {
        Self { table: Table::new(&SIZES), maps: FakeDataplane::new(&SIZES) }
    }

    fn sync(&mut self, frontends: &[(u8, &[u8], &[u8])]) -> Plan {
        let plan = self.table.sync(&desired(frontends));
        self.maps.run(&plan.transaction).unwrap();
        plan
    }

    fn reclaim(&mut self) {
        let transaction = self.table.reclaim();
        self.maps.run(&transaction).unwrap();
    }

    fn view(&self, n: u8) -> Option<View> {
        self.maps.lookup(&service_key(&key(n))).unwrap()
    }

    /// The last bytes of the slots' addresses.
    fn slots(&self, n: u8) -> Option<Vec<u8>> {
        let last = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        Some(self.view(n)?.slots.iter().map(|slot| last(slot.address.to_ip())).collect())
    }

    fn backend(&self, n: u8, backend: u8) -> Option<(u32, BackendState)> {
        let found = self.table.backends(&key(n)).find(|(found, _, _)| *found == address(backend));
        let (_, id, state) = found?;
        assert_eq!(self.maps.state(id), state);
        Some((id, state))
    }

    fn flow(&self, n: u8, backend: u8) -> FlowRef {
        let (backend_id, state) = self.backend(n, backend).unwrap();
        FlowRef {
            vip: Address::from(key(n).vip),
            service: self.table.frontend_index(&key(n)).unwrap(),
            backend: target(backend).0,
            backend_port: target(backend).1,
            backend_id,
            generation: state.generation(),
        }
    }

    fn recover(&self) -> Table {
        Table::recover(&self.maps.dump().unwrap())
    }
}

use std::net::IpAddr;

fn has_grace(transaction: &Transaction) -> bool {
    transaction.contains(&Operation::GracePeriod)
}

#[test]
fn an_address_that_no_pod_can_have_never_enters_the_maps_and_keeps_no_other_out() {
    let mut pair = Pair::new();
    let mut all = desired(&[(1, &[1, 2], &[3])]);
    let (metadata, no_port) = ("169.254.169.254:80".parse().unwrap(), "10.10.0.9:0".parse().unwrap());
    let frontend = Arc::make_mut(all.get_mut(&key(1)).unwrap());
    let mut slots = frontend.slots.to_vec();
    slots.insert(1, metadata);
    frontend.slots = slots.into();
    frontend.serving.push(no_port);
    let plan = pair.table.sync(&all);
    assert_eq!(plan.refused, BTreeSet::from([metadata, no_port]));
    pair.maps.run(&plan.transaction).unwrap();
    let mut others = Pair::new();
    others.sync(&[(1, &[1, 2], &[3])]);
    assert_eq!(pair.view(1), others.view(1));
}

#[test]
fn what_is_already_so_costs_nothing() {
    let mut pair = Pair::new();
    assert!(!pair.sync(&[(1, &[1, 2], &[]), (2, &[], &[])]).transaction.is_empty());
    assert_eq!(pair.sync(&[(1, &[1, 2], &[]), (2, &[], &[])]), Plan::default());
    assert_eq!(pair.slots(1), Some(vec![1, 2]));
    assert_eq!(pair.slots(2), Some(vec![]));
}

#[test]
fn new_endpoints_keep_index_ids_and_counters() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1, 2], &[])]);
    let (index, stays) = (pair.view(1).unwrap().frontend, pair.backend(1, 2).unwrap());
    let plan = pair.sync(&[(1, &[2, 3], &[])]);
    assert_eq!(pair.view(1).unwrap().frontend, index);
    assert_eq!(pair.backend(1, 2), Some(stays));
    assert_eq!(pair.backend(1, 1), None);
    assert!(!plan.transaction.iter().any(|operation| matches!(
        operation,
        Operation::ResetService { .. } | Operation::InsertService { .. } | Operation::GracePeriod
    )));
}

#[test]
fn a_backend_out_of_the_slots_serves_on_and_comes_back_as_itself() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1, 2], &[])]);
    let (id, live) = pair.backend(1, 1).unwrap();
    pair.sync(&[(1, &[2], &[1])]);
    assert_eq!(pair.backend(1, 1), Some((id, BackendState::new(live.generation(), Liveness::Serving))));
    pair.sync(&[(1, &[1, 2], &[])]);
    assert_eq!(pair.backend(1, 1), Some((id, live)));
    pair.sync(&[(1, &[2], &[])]);
    assert_eq!(pair.maps.state(id), BackendState::new(live.generation(), Liveness::Gone));
}

#[test]
fn a_backend_that_was_gone_comes_back_as_another() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[])]);
    let (id, _) = pair.backend(1, 1).unwrap();
    pair.sync(&[(1, &[], &[])]);
    pair.sync(&[(1, &[1], &[])]);
    assert_ne!(pair.backend(1, 1).unwrap().0, id);
}

#[test]
fn an_id_passes_to_its_next_owner_with_a_new_generation() {
    let mut pair = Pair::new();
    for n in 0..20 {
        pair.sync(&[(1, &[n], &[])]);
    }
    let generations: BTreeSet<u32> = (1..12).map(|id| pair.maps.state(id).generation()).collect();
    assert_eq!(generations, BTreeSet::from([1, 2]));
}

#[test]
fn weights_are_repetition_and_share_an_id() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1, 2, 1, 1], &[])]);
    let ids: Vec<u32> = pair.view(1).unwrap().slots.iter().map(|slot| slot.backend).collect();
    assert_eq!(ids, [1, 2, 1, 1]);
}

#[test]
fn one_address_behind_two_frontends_has_two_ids() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[]), (2, &[1], &[])]);
    assert_ne!(pair.backend(1, 1).unwrap().0, pair.backend(2, 1).unwrap().0);
}

#[test]
fn nothing_is_inserted_after_a_removal_without_a_grace_period() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[])]);
    let plan = pair.sync(&[(2, &[1], &[])]);
    assert!(!has_grace(&plan.transaction), "insertions come first");
    let plan = pair.sync(&[(2, &[1], &[]), (3, &[1], &[])]);
    assert_eq!(plan.transaction.first(), Some(&Operation::GracePeriod));
    pair.sync(&[(2, &[1], &[])]);
    pair.reclaim();
    assert!(!has_grace(&pair.sync(&[(2, &[1], &[]), (3, &[1], &[])]).transaction));
    assert!(pair.table.limbo.is_empty());
    pair.reclaim();
    assert_eq!(pair.table.reclaim(), []);
}

#[test]
fn when_room_is_short_removals_make_it() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[]), (2, &[2], &[]), (3, &[3], &[]), (4, &[4], &[])]);
    let plan = pair.sync(&[(2, &[2], &[]), (3, &[3], &[]), (4, &[4], &[]), (5, &[5], &[])]);
    assert_eq!(plan.rejected, []);
    assert!(has_grace(&plan.transaction));
    assert_eq!(pair.slots(1), None);
    assert_eq!(pair.slots(5), Some(vec![5]));
}

#[test]
fn what_does_not_fit_stays_as_it_was_and_stops_nobody() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[])]);
    let many: Vec<u8> = (1..13).collect();
    let plan = pair.sync(&[(1, &many, &[]), (2, &[2; 40], &[]), (3, &[3], &[]), (4, &[4], &[])]);
    let errors: Vec<_> =
        plan.rejected.iter().map(|rejected| (rejected.key, rejected.error.clone())).collect();
    assert_eq!(
        errors,
        [
            (key(1), CapacityError::Backends { capacity: 11, in_use: 1, needed: 11 }),
            (key(2), CapacityError::Slots { capacity: 31, in_use: 2, needed: 41, longest: 29 }),
        ]
    );
    assert_eq!(pair.slots(1), Some(vec![1]));
    assert_eq!(pair.slots(4), Some(vec![4]));
    let all = [(1, &[1][..], &[][..]), (3, &[3], &[]), (4, &[4], &[]), (5, &[5], &[]), (6, &[6], &[])];
    let plan = pair.sync(&all);
    let error = &plan.rejected[0].error;
    assert_eq!(*error, CapacityError::Frontends { capacity: 4, in_use: 4 });
    assert!(error.to_string().ends_with("4 of 4 frontends are in use; raise --max-frontends"), "{error}");
}

#[test]
fn a_bit_stays_while_a_flow_needs_it() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[])]);
    pair.maps.set_flows(BTreeSet::from([pair.flow(1, 1)]));
    pair.sync(&[]);
    let hot = [(Direction::FromPod, Address::from(key(1).vip)), (Direction::ToPod, target(1).0)];
    let mark = pair.table.linger_mark();
    assert_eq!(pair.table.release_hot(&mark, &BTreeSet::new()), [], "no grace period yet");
    pair.reclaim();
    assert_eq!(pair.table.release_hot(&mark, &BTreeSet::new()), [], "the scan began before it");
    assert_eq!(pair.table.linger_candidates().collect::<Vec<_>>(), hot);
    let mark = pair.table.linger_mark();
    let transaction = pair.table.release_hot(&mark, &BTreeSet::from(hot));
    pair.maps.run(&transaction).unwrap();
    pair.maps.set_flows(BTreeSet::new());
    let transaction = pair.table.release_hot(&mark, &BTreeSet::new());
    pair.maps.run(&transaction).unwrap();
    for (direction, address) in hot {
        assert!(!pair.maps.is_hot(direction, &address));
    }
    assert!(!pair.table.wants_scan());
}

#[test]
fn an_address_that_is_held_again_keeps_its_bit() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[])]);
    pair.sync(&[]);
    pair.reclaim();
    let mark = pair.table.linger_mark();
    pair.sync(&[(1, &[1], &[])]);
    assert_eq!(pair.table.release_hot(&mark, &BTreeSet::new()), []);
}

#[test]
fn a_restart_changes_nothing() {
    let mut pair = Pair::new();
    let objects: [(u8, &[u8], &[u8]); 2] = [(1, &[1, 2, 1], &[]), (2, &[], &[])];
    pair.sync(&[(1, &[1, 2, 3], &[]), (2, &[], &[])]);
    let flow = pair.flow(1, 3);
    pair.maps.set_flows(BTreeSet::from([flow]));
    pair.sync(&[(1, &[1, 2, 1], &[3]), (2, &[], &[])]);
    let before = pair.backend(1, 3);
    pair.table = pair.recover();
    assert_eq!(pair.backend(1, 3), before, "known from its flow");
    assert_eq!(pair.sync(&[(1, &[1, 2, 1], &[3]), (2, &[], &[])]), Plan::default());
    pair.sync(&objects);
    assert_eq!(pair.maps.state(flow.backend_id).liveness(), Liveness::Gone);
    // Nor is more in use than is used, whether what else there was has had its grace period or not.
    for _ in 0..2 {
        let Usage { frontends, elements, backends } = pair.table.usage();
        assert_eq!([frontends, elements, backends].map(|fill| fill.in_use), [2, 5, 2]);
        pair.reclaim();
    }
}

#[test]
fn a_restart_sweeps_what_leads_nowhere() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[]), (2, &[2], &[]), (3, &[3], &[])]);
    let (services, frontends, backends) = pair.maps.damage();
    frontends[1] = 0;
    backends[5] = mcs_proxy_ebpf::abi::Element::default();
    services.insert(service_key(&key(9)), 0);
    pair.table = pair.recover();
    assert_eq!(pair.table.stray_services().count(), 3);
    pair.table.reclaim().iter().for_each(|operation| match pair.maps.run(std::slice::from_ref(operation)) {
        // The fake minds that frontends are broken while they still are.
        Ok(()) | Err(_) => {}
    });
    pair.sync(&[(1, &[1], &[]), (2, &[2], &[])]);
    assert_eq!((pair.slots(1), pair.slots(2), pair.slots(3)), (Some(vec![1]), Some(vec![2]), None));
}

#[test]
fn inherited_bits_go_when_no_flow_needs_them() {
    let mut pair = Pair::new();
    pair.sync(&[(1, &[1], &[])]);
    pair.sync(&[(2, &[2], &[])]);
    pair.table = pair.recover();
    pair.reclaim();
    let mark = pair.table.linger_mark();
    let transaction = pair.table.release_hot(&mark, &BTreeSet::from([(Direction::ToPod, target(1).0)]));
    pair.maps.run(&transaction).unwrap();
    assert!(!pair.maps.is_hot(Direction::FromPod, &Address::from(key(1).vip)));
    assert!(pair.maps.is_hot(Direction::ToPod, &target(1).0));
    assert!(pair.maps.is_hot(Direction::ToPod, &target(2).0));
    assert!(pair.table.wants_scan());
}

/// A scan that began before a failure says nothing about what the recovered table has let go of.
#[test]
fn a_mark_is_good_for_its_own_table_only() {
    let mut pair = Pair::new();
    for n in 1..4 {
        pair.sync(&[(n, &[n], &[])]);
        pair.reclaim();
    }
    let mark = pair.table.linger_mark();
    pair.table = pair.recover();
    pair.reclaim();
    pair.sync(&[]);
    pair.reclaim();
    assert!(pair.table.wants_scan());
    assert_eq!(pair.table.release_hot(&mark, &BTreeSet::new()), []);
    let mark = pair.table.linger_mark();
    assert_ne!(pair.table.release_hot(&mark, &BTreeSet::new()), []);
}

#[test]
fn an_empty_dump_is_an_empty_table() {
    let mut table = Table::recover(&Dump::default());
    assert_eq!(table.sync(&desired(&[(1, &[1], &[])])).rejected.len(), 1);
}

#[test]
fn a_frontend_that_leaves_sockets_alone_is_written_so_and_stays_so_over_a_restart() {
    let mut pair = Pair::new();
    let mut wanted = desired(&[(1, &[1], &[])]);
    let sync = |pair: &mut Pair, wanted: &Desired| {
        let plan = pair.table.sync(wanted);
        pair.maps.run(&plan.transaction).unwrap();
        plan.transaction
    };
    sync(&mut pair, &wanted);
    wanted.values_mut().for_each(|frontend| Arc::make_mut(frontend).packets_only = true);
    let rewritten = sync(&mut pair, &wanted);
    let headers: Vec<bool> = rewritten
        .iter()
        .filter_map(|operation| {
            let Operation::WriteExtent { elements, .. } = operation else { return None };
            elements[0].as_header()
        })
        .map(|header| header.packets_only)
        .collect();
    assert_eq!(headers, [true]);
    pair.table = pair.recover();
    pair.reclaim();
    assert_eq!(sync(&mut pair, &wanted), []);
}
