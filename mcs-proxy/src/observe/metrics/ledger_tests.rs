use super::*;
use crate::{
    dataplane::pins::DumpedFrontend,
    observe::catalog::{Catalog, CatalogEndpoint, CatalogFrontend},
};
use mcs_proxy_ebpf::abi::{Address, Algorithm, Header, Port, Protocol, Slot};
use std::net::IpAddr;

/// Counts by id; a backend's with its generation and liveness.
#[derive(Default)]
struct Fake {
    services: BTreeMap<u32, ServiceCounters>,
    backends: BTreeMap<u32, (u32, Liveness, u32)>,
}

impl Counts for Fake {
    fn service(&self, service: u32) -> Result<ServiceCounters, PinsError> {
        Ok(self.services.get(&service).copied().unwrap_or_default())
    }

    fn backend(&self, backend: u32) -> Result<BackendCounters, PinsError> {
        let flows = self.backends.get(&backend).map_or(0, |(_, _, flows)| *flows);
        Ok(BackendCounters { flows, bytes: u64::from(flows) * 100, ..BackendCounters::default() })
    }

    fn state(&self, backend: u32) -> BackendState {
        let (generation, liveness, _) =
            self.backends.get(&backend).copied().unwrap_or((0, Liveness::Gone, 0));
        BackendState::new(generation, liveness)
    }
}

const A: &str = "10.10.0.6";
const B: &str = "10.12.0.6";

/// A Service by name, index and (backend id, address).
type Entry<'a> = (&'a str, u32, &'a [(u32, &'a str)]);

fn stage(services: &[Entry<'_>]) -> (Inventory, FrontendDump) {
    let mut catalog = Catalog::default();
    let mut dump = FrontendDump::default();
    for (name, index, backends) in services {
        let vip: IpAddr = format!("10.13.0.{}", index + 1).parse().unwrap();
        let endpoint = |(_, address): &(u32, &str)| CatalogEndpoint {
            address: address.parse().unwrap(),
            port: 8080,
            cluster: if *address == A { "member1".into() } else { "member2".into() },
            slice: "serve".into(),
            verdict: "used".into(),
            slots: 1,
            tier: None,
        };
        let slot = |(backend, address): &(u32, &str)| Slot {
            address: Address::from(address.parse::<IpAddr>().unwrap()),
            port: Port::new(8080),
            backend: *backend,
        };
        catalog.frontends.push(CatalogFrontend {
            vip,
            port: 80,
            protocol: "TCP".into(),
            namespace: "default".into(),
            name: (*name).into(),
            port_name: String::new(),
            algorithm: "random".into(),
            packets_only: false,
            endpoints: backends.iter().map(endpoint).collect(),
            active_tier: None,
        });
        dump.frontends.push(DumpedFrontend {
            key: FrontendKey { vip, port: 80, protocol: Protocol::Tcp },
            index: *index,
            header: Header {
                probe: false,
                count: backends.len() as u32,
                service: *index,
                frontend: *index,
                algorithm: Algorithm::Random,
                affinity_seconds: 0,
                packets_only: false,
            },
            slots: backends.iter().map(slot).collect(),
        });
    }
    (Inventory::of(&catalog), dump)
}

fn flows(ledger: &Ledger) -> Vec<(String, u64)> {
    let name = |key: &RowKey| {
        let service = key.service.as_ref().map_or("other", |service| &*service.name);
        format!("{service} {}", key.cluster.as_deref().unwrap_or("-"))
    };
    ledger.by_cluster.iter().map(|(key, sums)| (name(key), sums.flows)).collect()
}

fn rows(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
    rows.iter().map(|(name, flows)| ((*name).to_owned(), *flows)).collect()
}

#[test]
fn what_is_counted_by_service_and_cluster_never_shrinks_while_backends_come_and_go() {
    let mut ledger = Ledger::new(10);
    let mut fake = Fake::default();
    let (inventory, dump) = stage(&[("serve", 0, &[(1, A), (2, B)])]);
    fake.backends = BTreeMap::from([(1, (1, Liveness::Live, 5)), (2, (1, Liveness::Live, 3))]);
    fake.services.insert(0, ServiceCounters { flows: 8, packets_in: 80, ..ServiceCounters::default() });
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger), rows(&[("serve member1", 5), ("serve member2", 3)]));

    // The second leaves, after two more flows that no scrape has seen; the id keeps them.
    let (inventory, dump) = stage(&[("serve", 0, &[(1, A)])]);
    fake.backends.insert(2, (1, Liveness::Gone, 5));
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger), rows(&[("serve member1", 5), ("serve member2", 5)]));

    // Another gets the id: it begins from zero, before its generation is written, and after it.
    fake.backends.insert(2, (1, Liveness::Gone, 0));
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger)[1], ("serve member2".to_owned(), 5));
    let (inventory, dump) = stage(&[("serve", 0, &[(1, A), (2, B)])]);
    fake.backends.insert(2, (2, Liveness::Live, 1));
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger), rows(&[("serve member1", 5), ("serve member2", 6)]));
    let by_service: Vec<_> = ledger.by_service.iter().map(|(_, sums)| sums.packets_in).collect();
    assert_eq!(by_service, [80]);
}

#[test]
fn beyond_the_bound_rows_are_one_and_make_way_when_their_services_go() {
    let mut ledger = Ledger::new(1);
    let backends = (1..4).map(|id| (id, (1, Liveness::Live, id))).collect();
    let mut fake = Fake { backends, ..Fake::default() };
    let (inventory, dump) = stage(&[("a", 0, &[(1, A)]), ("b", 1, &[(2, A)]), ("c", 2, &[(3, B)])]);
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger), rows(&[("other other", 5), ("a member1", 1)]));

    // The first goes, and its row with it; who comes next gets that, and the others go on where they were.
    fake.backends.insert(1, (1, Liveness::Gone, 1));
    let (inventory, dump) = stage(&[("b", 1, &[(2, A)]), ("c", 2, &[(3, B)])]);
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger), rows(&[("other other", 5)]));
    fake.backends.insert(4, (1, Liveness::Live, 7));
    let (inventory, dump) = stage(&[("b", 1, &[(2, A)]), ("c", 2, &[(3, B)]), ("d", 3, &[(4, A)])]);
    ledger.update(&inventory, &dump, &fake).unwrap();
    assert_eq!(flows(&ledger), rows(&[("other other", 5), ("d member1", 7)]));
}

#[test]
fn an_index_that_passes_to_another_frontend_is_counted_from_zero() {
    let mut ledger = Ledger::new(10);
    let mut fake = Fake::default();
    let count = |flows| ServiceCounters { flows, packets_in: flows * 10, ..ServiceCounters::default() };
    fake.services.insert(0, count(9));
    let (inventory, dump) = stage(&[("a", 0, &[])]);
    ledger.update(&inventory, &dump, &fake).unwrap();
    let (inventory, mut dump) = stage(&[("b", 0, &[])]);
    dump.frontends[0].key.port = 81;
    let _ = ledger.update(&inventory, &dump, &fake);
    fake.services.insert(0, count(2));
    let (inventory, dump) = stage(&[("b", 0, &[])]);
    ledger.update(&inventory, &dump, &fake).unwrap();
    let sums: Vec<_> =
        ledger.by_service.iter().map(|(key, sums)| (key.service.clone().unwrap().name, sums.flows)).collect();
    assert_eq!(sums, [("b".into(), 2)]);
}
