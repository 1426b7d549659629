use crate::place::{Place, SIZES};
use aya::maps::{HashMap, MapData};
use mcs_proxy::dataplane::{
    flows::{Clock, Collector, Timeouts, reply_key},
    pins::{PinDir, Pins},
    sys::Access,
};
use mcs_proxy_ebpf::abi::{
    Address, Direction, Flow, FlowState, MapName, MapSizes, Port, Protocol, Reply, Tuple,
};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

const ESTABLISHED: FlowState = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
const CLOSED: FlowState = FlowState::ANSWERED.with(FlowState::RESET);

struct Maps {
    flows: HashMap<MapData, Tuple, Flow>,
    replies: HashMap<MapData, Tuple, Reply>,
}

impl Maps {
    fn open(pins: &PinDir) -> Self {
        Self {
            flows: pins.open_as(MapName::Flows, Access::ReadWrite).unwrap(),
            replies: pins.open_as(MapName::Replies, Access::ReadWrite).unwrap(),
        }
    }

    fn insert(&mut self, port: u16, flow: &Flow, halves: &[Direction]) -> Tuple {
        let tuple = Tuple::new(address(2), Port::new(port), flow.vip, Port::new(80), flow.protocol);
        let reply = Reply {
            vip: flow.vip,
            backend: flow.backend,
            vip_port: Port::new(80),
            wire_port: flow.wire_port,
            client_port: flow.client_port,
            protocol: flow.protocol,
            state: flow.state.only(FlowState::ANSWERED),
            backend_id: flow.backend_id,
            service: flow.service,
            interface: flow.interface,
            last_seen: flow.last_seen,
        };
        if halves.contains(&Direction::FromPod) {
            self.flows.insert(tuple, flow, 0).unwrap();
        }
        if halves.contains(&Direction::ToPod) {
            self.replies.insert(reply_key(&tuple, flow), reply, 0).unwrap();
        }
        tuple
    }

    fn ports(&self) -> [BTreeSet<u16>; 2] {
        let port = |tuple: Tuple| tuple.client_port.get();
        [
            self.flows.keys().map(|tuple| port(tuple.unwrap())).collect(),
            self.replies.keys().map(|tuple| port(tuple.unwrap())).collect(),
        ]
    }
}

fn address(n: u8) -> Address {
    Address::from(IpAddr::from([10, 12, 0, n]))
}

fn flow(port: u16, protocol: Protocol, state: FlowState, last_seen: u32) -> Flow {
    Flow {
        backend: address(6),
        vip: address(200),
        backend_port: Port::new(8080),
        wire_port: Port::new(port),
        client_port: Port::new(port),
        protocol: protocol.number(),
        state,
        backend_id: 1,
        generation: 1,
        interface: 7,
        isn: 0,
        service: 0,
        last_seen,
    }
}

#[test]
fn the_clock_runs_in_ticks() {
    let place = Place::new("clock");
    drop(place.load());
    let clock = Clock::open(&place.pins).unwrap();
    let start = clock.now().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let age = clock.rate().age(clock.now().unwrap(), start);
    assert!((Duration::from_millis(400)..Duration::from_millis(2000)).contains(&age), "{age:?}");
}

#[test]
fn the_silent_are_forgotten_by_protocol_and_state() {
    let place = Place::new("silent");
    drop(place.load());
    let mut maps = Maps::open(&place.pins);
    let clock = Clock::open(&place.pins).unwrap();
    let now = clock.now().unwrap();
    let tick = clock.rate().age(1, 0);
    let ago = |seconds: u64| {
        let ticks = (Duration::from_secs(seconds).as_millis() / tick.as_millis()) as u32;
        now.wrapping_sub(ticks)
    };
    let both = [Direction::FromPod, Direction::ToPod];
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    for (port, protocol, state, seconds) in [
        (1, tcp, ESTABLISHED, 3600),
        (2, tcp, FlowState::NEW, 60),
        (3, tcp, FlowState::NEW, 200),
        (4, tcp, CLOSED, 200),
        (5, udp, FlowState::NEW, 60),
        (6, udp, ESTABLISHED, 60),
        (7, udp, ESTABLISHED, 300),
        (8, tcp, ESTABLISHED, 6 * 86_400),
        (9, sctp, ESTABLISHED, 180),
        (10, sctp, ESTABLISHED, 240),
        (11, sctp, CLOSED, 60),
    ] {
        maps.insert(port, &flow(port, protocol, state, ago(seconds)), &both);
    }
    // Halves: one whose other was lost, old and young; and a flow without its reply, which its next packet restores.
    maps.insert(20, &flow(20, tcp, ESTABLISHED, ago(6 * 86_400)), &[Direction::ToPod]);
    maps.insert(21, &flow(21, tcp, FlowState::NEW, ago(1)), &[Direction::ToPod]);
    maps.insert(22, &flow(22, tcp, ESTABLISHED, ago(1)), &[Direction::FromPod]);

    let mut collector = Collector::open(&place.pins).unwrap();
    let collected = collector.collect(&Timeouts::DEFAULT, None).unwrap();
    assert_eq!((collected.established, collected.expired, collected.orphans), (5, 7, 1));
    assert_eq!(maps.ports(), [BTreeSet::from([1, 2, 6, 9, 22]), BTreeSet::from([1, 2, 6, 9, 21])]);
    let hot = [(Direction::FromPod, address(200)), (Direction::ToPod, address(6))];
    assert_eq!(collected.referenced, BTreeSet::from(hot));

    let pins = Pins::open(&place.pins).unwrap();
    let mut seen = BTreeSet::new();
    pins.for_each_flow(|tuple, _| assert!(seen.insert(tuple.client_port.get()))).unwrap();
    assert_eq!(seen, BTreeSet::from([1, 2, 6, 9, 22]));

    let zero = Duration::ZERO;
    let none = Timeouts {
        tcp_syn_sent: zero,
        tcp_syn_received: zero,
        tcp_established: zero,
        tcp_half_closed: zero,
        tcp_closed: zero,
        udp: zero,
        udp_stream: zero,
        sctp_cookie_wait: zero,
        sctp_cookie_echoed: zero,
        sctp_established: zero,
        sctp_closed: zero,
    };
    collector.collect(&none, None).unwrap();
    assert_eq!(maps.ports(), [BTreeSet::new(), BTreeSet::new()]);
    assert!(collector.collect(&Timeouts::DEFAULT, None).unwrap().referenced.is_empty());
}

/// Flows of an interface that came after the list was made must not be taken for those of one that is gone.
#[test]
fn what_an_interface_leaves_behind_goes_but_a_new_ones_flows_stay() {
    let place = Place::new("interfaces");
    drop(place.load());
    let mut maps = Maps::open(&place.pins);
    let clock = Clock::open(&place.pins).unwrap();
    let now = clock.now().unwrap();
    let ten_seconds = (10_000 / clock.rate().age(1, 0).as_millis()) as u32;
    let both = [Direction::FromPod, Direction::ToPod];
    let tcp = |port, last_seen| flow(port, Protocol::Tcp, ESTABLISHED, last_seen);
    maps.insert(1, &tcp(1, now.wrapping_sub(ten_seconds)), &both);
    maps.insert(2, &tcp(2, now), &both);
    maps.insert(3, &Flow { interface: 8, ..tcp(3, now.wrapping_sub(ten_seconds)) }, &both);
    let mut collector = Collector::open(&place.pins).unwrap();
    collector.collect(&Timeouts::DEFAULT, Some(&BTreeSet::from([8]))).unwrap();
    assert_eq!(maps.ports(), [BTreeSet::from([2, 3]), BTreeSet::from([2, 3])]);
}

/// More than one answer of the kernel's holds.
#[test]
fn a_large_map_is_seen_whole_and_once() {
    let place = Place::new("large");
    drop(place.load_with(&MapSizes { flows: 16_384, ..SIZES }));
    let mut maps = Maps::open(&place.pins);
    for port in 1..=10_000 {
        maps.insert(port, &flow(port, Protocol::Tcp, ESTABLISHED, 0), &[Direction::FromPod]);
    }
    let mut seen = BTreeSet::new();
    let pins = Pins::open(&place.pins).unwrap();
    pins.for_each_flow(|tuple, _| assert!(seen.insert(tuple.client_port.get()))).unwrap();
    assert_eq!(seen, (1..=10_000).collect());
}
