//! Services whose endpoints are swapped under lookups from all sides: whoever looks sees the old or the new ones.

use crate::place::{Place, options};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use mcs_proxy::{
    dataplane::{Dataplane as _, kernel::KernelDataplane, loader::load, pins::Pins, table::Table},
    desired::{Desired, Frontend, FrontendKey},
    model::NamespacedName,
};
use mcs_proxy_ebpf::abi::{Algorithm, Direction, MapSizes, Protocol, Verdict};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// Small enough that what was let go of is used again all the time.
const SIZES: MapSizes = MapSizes {
    frontends: 8,
    elements: 8192,
    backend_ids: 4096,
    flows: 256,
    transient: 4096,
    affinity: 256,
    fragments: 16,
    sockets: 16,
};

/// How often a Service's endpoints are swapped, all Services together; `MCS_PROXY_SWAPS=1000000` is what a release is
/// tried with.
fn swaps() -> u64 {
    std::env::var("MCS_PROXY_SWAPS").map_or(20_000, |text| text.parse().expect("MCS_PROXY_SWAPS is a number"))
}

/// The last of them is taken out and entered again from time to time; one has affinity, one a wheel of chance.
const SERVICES: u8 = 4;
/// Sets of endpoints follow one another in a circle, and no two have an address in common.
const SETS: u64 = 100;
const LOOKERS: u8 = 2;

/// Whether the Service is taken out in this round.
fn is_out(service: u8, round: u64) -> bool {
    service == SERVICES - 1 && round % 256 >= 250
}

/// One to five endpoints, with the Service, the set and the number in the address.
fn desired(round: u64) -> Desired {
    let set = u8::try_from(round % SETS).unwrap();
    (0..SERVICES)
        .filter(|&service| !is_out(service, round))
        .map(|service| {
            let key = FrontendKey { vip: [10, 13, 0, service].into(), port: 80, protocol: Protocol::Tcp };
            let count = 1 + (set + service) % 5;
            let slots = (0..count).map(|n| ([10, service, set, n], 8080).into()).collect();
            let frontend = Frontend {
                service: NamespacedName::new("default", format!("serve-{service}")),
                port_name: "".into(),
                algorithm: if service == 1 { Algorithm::Random } else { Algorithm::RoundRobin },
                affinity_seconds: if service == 2 { 10_800 } else { 0 },
                packets_only: false,
                probe: None,
                watched: Vec::new(),
                dropped: Vec::new(),
                owns_vip: true,
                used: usize::from(count),
                fingerprint: 0,
                slots,
                serving: Vec::new(),
            };
            (key, Arc::new(frontend))
        })
        .collect()
}

/// Rounds that have begun, and rounds that are over.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    over: AtomicU64,
    finished: AtomicBool,
}

/// Ends the lookups, also if the writer fails.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_lookup_ever_sees_a_mix_or_another_services_backend() {
    let place = Place::new("swaps");
    let mut loaded = load(mcs_proxy::EBPF_OBJECT, &place.pins, &options(&SIZES)).unwrap();
    let mut maps = KernelDataplane::open(&place.pins).unwrap();
    let mut table = Table::recover(&maps.dump().unwrap());
    let mut carry_out = |round| {
        let plan = table.sync(&desired(round));
        assert_eq!(plan.rejected, []);
        maps.run(&plan.transaction).unwrap();
    };
    carry_out(0);
    let progress = Progress::default();
    let program = loaded.programs.classifier(Direction::FromPod).unwrap();
    let rounds = swaps() / u64::from(SERVICES);
    let lookups: u64 = thread::scope(|scope| {
        let (program, progress) = (&*program, &progress);
        let lookers: Vec<_> =
            (0..LOOKERS).map(|looker| scope.spawn(move || look(looker, program, progress))).collect();
        let finish = Finish(&progress.finished);
        for round in 1..=rounds {
            if lookers.iter().any(|looker| looker.is_finished()) {
                break;
            }
            progress.begun.store(round, Ordering::SeqCst);
            carry_out(round);
            progress.over.store(round, Ordering::SeqCst);
        }
        drop(finish);
        lookers.into_iter().map(|looker| looker.join().unwrap()).sum()
    });
    println!("{rounds} swaps of each of {SERVICES} Services under {lookups} lookups");
    assert!(lookups > rounds, "{lookups} lookups in {rounds} rounds");
    let verdicts = Pins::open(&place.pins).unwrap().verdicts().unwrap();
    for (verdict, count) in verdicts {
        let fine = matches!(verdict, Verdict::NewFlow | Verdict::NoService);
        assert!(fine || count == 0, "{verdict:?}: {count}");
    }
}

/// Opens flows until the swaps are over; returns how many.
fn look(looker: u8, program: &SchedClassifier, progress: &Progress) -> u64 {
    let mut lookups = 0;
    for number in 0_u32.. {
        if progress.finished.load(Ordering::SeqCst) {
            break;
        }
        let service = (number % u32::from(SERVICES)) as u8;
        let over = progress.over.load(Ordering::SeqCst);
        let target = target(program, &syn(looker, service, number));
        let begun = progress.begun.load(Ordering::SeqCst);
        if begun - over >= SETS {
            // Too slow to tell one turn of the circle from the next.
            continue;
        }
        lookups += 1;
        let (wanted, ours) = ([10, 13, 0, service], target[1] == service);
        if target == wanted {
            assert!((over..=begun).any(|round| is_out(service, round)), "passed in {over}..={begun}");
            continue;
        }
        let fits = |round: u64| {
            let set = (round % SETS) as u8;
            target[2] == set && target[3] < 1 + (set + service) % 5
        };
        assert!(ours && (over..=begun).any(fits), "service {service} in {over}..={begun}: {target:?}");
    }
    lookups
}

/// A SYN over IPv4. The program under test doesn't mind that its checksums are zero.
fn syn(looker: u8, service: u8, number: u32) -> Vec<u8> {
    let mut packet = vec![0; 54];
    packet[12..14].copy_from_slice(&[0x08, 0x00]);
    packet[14] = 0x45;
    packet[16..18].copy_from_slice(&40_u16.to_be_bytes());
    packet[22..24].copy_from_slice(&[64, 6]);
    packet[26..30].copy_from_slice(&[10, 200, 0, looker]);
    packet[30..34].copy_from_slice(&[10, 13, 0, service]);
    packet[34..36].copy_from_slice(&((number / 4 % 60_000) as u16 + 1).to_be_bytes());
    packet[36..38].copy_from_slice(&80_u16.to_be_bytes());
    packet[38..42].copy_from_slice(&number.to_be_bytes());
    packet[46] = 5 << 4;
    packet[47] = 2;
    packet
}

/// Where the packet goes.
fn target(program: &SchedClassifier, packet: &[u8]) -> [u8; 4] {
    let mut out = [0; 128];
    program
        .test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })
        .unwrap();
    out[30..34].try_into().unwrap()
}
