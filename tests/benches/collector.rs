//! What the collector of silent flows costs with half a million of them: processor time, which is what its share of a
//! core follows from, and how long it takes to forget the flows of an interface that has vanished.
#![expect(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

#[path = "../tests/dataplane/place.rs"]
#[expect(dead_code, reason = "shared with the tests of the dataplane, which need more of it")]
mod place;

use aya::maps::{HashMap, MapData};
use mcs_proxy::{
    daemon::COLLECTION_REST,
    dataplane::{
        flows::{Clock, Collected, Collector, Timeouts},
        sys::Access,
    },
};
use mcs_proxy_ebpf::{
    abi::{Address, Flow, FlowState, MapName, MapSizes, Port, Protocol, Reply, Tuple},
    transition::{reply_key_of, reply_of},
};
use place::Place;
use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

const SIZES: MapSizes = MapSizes::DEFAULT;
/// The daemon's --flow-scan-interval.
const INTERVAL: Duration = Duration::from_secs(30);
const ROUNDS: u32 = 5;
/// The flows are spread over so many interfaces, from 1 on.
const INTERFACES: u32 = 4;

fn main() {
    let place = Place::new("collector");
    drop(place.load_with(&SIZES));
    let now = Clock::open(&place.pins).unwrap().now().unwrap();
    let mut flows: HashMap<MapData, Tuple, Flow> =
        place.pins.open_as(MapName::Flows, Access::ReadWrite).unwrap();
    let mut replies: HashMap<MapData, Tuple, Reply> =
        place.pins.open_as(MapName::Replies, Access::ReadWrite).unwrap();
    for number in 0..SIZES.flows {
        // As old as a scan finds most: an hour is long for any flow but an established one of TCP.
        let (key, flow, reply_key, reply) = pair(number, now.wrapping_sub(3600 * 4));
        flows.insert(key, flow, 0).unwrap();
        replies.insert(reply_key, reply, 0).unwrap();
    }
    let mut collector = Collector::open(&place.pins).unwrap();
    let all = BTreeSet::from_iter(1..=INTERFACES);
    let mut scan = |interfaces: &BTreeSet<u32>| {
        let (start, cpu) = (Instant::now(), thread_cpu_time());
        let collected = collector.collect(&Timeouts::DEFAULT, Some(interfaces)).unwrap();
        (collected, start.elapsed(), thread_cpu_time() - cpu)
    };
    let costs: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let (Collected { established, expired, .. }, took, cpu) = scan(&all);
            assert_eq!((established, expired), (SIZES.flows as usize, 0));
            println!("{established} flows looked at in {took:.0?}, {cpu:.0?} of a core");
            (took, cpu)
        })
        .collect();
    let took = costs.iter().map(|(took, _)| *took).sum::<Duration>() / ROUNDS;
    let cpu = costs.iter().map(|(_, cpu)| *cpu).sum::<Duration>() / ROUNDS;
    let period = took + INTERVAL.max(COLLECTION_REST * took);
    let share = 100.0 * cpu.as_secs_f64() / period.as_secs_f64();
    println!("which the daemon does every {period:.0?}: {share:.2} % of a core");

    let (Collected { expired, .. }, took, cpu) = scan(&BTreeSet::from_iter(2..=INTERFACES));
    assert_eq!(expired as u32, SIZES.flows / INTERFACES);
    println!("{expired} flows of a vanished interface forgotten in {took:.0?}, {cpu:.0?} of a core");
}

/// Processor time of this thread so far: the first number of its schedstat, in nanoseconds.
fn thread_cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Both halves of an established flow, with their keys.
fn pair(number: u32, last_seen: u32) -> (Tuple, Flow, Tuple, Reply) {
    let address =
        |network: u32, host: u32| Address::from(std::net::IpAddr::V4(Ipv4Addr::from((network << 24) | host)));
    let (client, vip, backend) =
        (address(11, number / 50_000), address(10, number % 1000), address(12, number % 5000));
    let (client_port, vip_port, backend_port) =
        (Port::new((number % 50_000) as u16 + 1), Port::new(80), Port::new(8080));
    let (protocol, interface) = (Protocol::Tcp.number(), 1 + number % INTERFACES);
    let flow = Flow {
        backend,
        vip,
        backend_port,
        wire_port: client_port,
        client_port,
        protocol,
        state: FlowState::ANSWERED.with(FlowState::ESTABLISHED),
        backend_id: 1 + number % 5000,
        generation: 1,
        interface,
        isn: number,
        service: number % 1000,
        last_seen,
    };
    let key = Tuple::new(client, client_port, vip, vip_port, protocol);
    (key, flow, reply_key_of(&key, &flow), reply_of(&key, &flow))
}
