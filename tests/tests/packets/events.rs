//! What the programs tell whoever listens.

use crate::{
    Net, TCP, UDP, each_case, nets, opening,
    programs::{POD, Place, Programs},
    round_robin,
    wire::Segment,
    with_port,
};
use mcs_proxy_ebpf::abi::{EVENTS, Event, EventKind, FlowState, MapName, Switch, Verdict, lease};
use std::net::SocketAddr;

const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0);

/// Someone listens to these kinds for the next few ticks, and to no other.
fn listen(programs: &mut Programs, kinds: &[EventKind]) {
    let until = lease(programs.now().wrapping_add(1000));
    let mut switch = switch(programs);
    switch.leases = EventKind::ALL.map(|kind| if kinds.contains(&kind) { until } else { 0 });
    set_switch(programs, switch);
}

fn switch(programs: &mut Programs) -> Switch {
    let words = programs.array::<[u64; 12]>(MapName::Events).get(&0, 0).unwrap();
    let [count, leases @ .., _, _, _, _, _] = words;
    Switch { count, leases, pad: [0; 5] }
}

fn set_switch(programs: &mut Programs, Switch { count, leases: [a, b, c, d, e, f], .. }: Switch) {
    let words = [count, a, b, c, d, e, f, 0, 0, 0, 0, 0];
    programs.array::<[u64; 12]>(MapName::Events).set(0, words, 0).unwrap();
}

fn event(programs: &mut Programs, sequence: u64) -> Event {
    let event = programs.array::<Event>(MapName::Events).get(&Event::element(sequence), 0).unwrap();
    assert!(event.is_whole() && event.sequence == sequence, "{event:?}");
    event
}

/// What was told since the maps were made: kind, verdict, client, VIP, backend.
fn told(programs: &mut Programs) -> Vec<(EventKind, Verdict, [SocketAddr; 3])> {
    (1..=switch(programs).count)
        .map(|sequence| {
            let event = event(programs, sequence);
            let verdict = Verdict::ALL[usize::from(event.verdict)];
            let ends = [
                (event.client, event.client_port),
                (event.vip, event.vip_port),
                (event.backend, event.backend_port),
            ];
            let ends = ends.map(|(address, port)| SocketAddr::new(address.to_ip(), port.get()));
            assert_eq!((event.interface, event.cookie), (POD, 0));
            (EventKind::from_number(event.kind).unwrap(), verdict, ends)
        })
        .collect()
}

/// A whole conversation over TCP, or a question and its answer.
fn converse(programs: &mut Programs, net: &Net, protocol: u8, end: &[(&'static str, bool)]) {
    let first = opening(protocol, net.client, net.vip, 1);
    let backend = net.backends[0];
    programs.from_pod(&first.bytes());
    programs.from_pod(&first.bytes());
    programs.to_pod(&first.answer(backend, "SA").bytes());
    programs.to_pod(&first.answer(backend, "SA").bytes());
    if protocol == TCP {
        programs.from_pod(&Segment::tcp(net.client, net.vip, "A", 2).bytes());
        for &(flags, from_client) in end {
            if from_client {
                programs.from_pod(&Segment::tcp(net.client, net.vip, flags, 2).bytes());
            } else {
                programs.to_pod(&first.answer(backend, flags).bytes());
            }
        }
    }
}

#[test]
fn a_flows_beginning_first_answer_and_end_are_told_once_each() {
    each_case(|net, protocol, programs| {
        listen(programs, &EventKind::ALL);
        let ends = [net.client, net.vip, net.backends[0]];
        converse(programs, &net, protocol, &[("AF", true), ("AF", false), ("A", true), ("AF", false)]);
        let mut expected =
            vec![(EventKind::New, Verdict::NewFlow, ends), (EventKind::Reply, Verdict::Replied, ends)];
        if protocol == TCP {
            expected.push((EventKind::Closed, Verdict::Replied, ends));
        }
        assert_eq!(told(programs), expected);
        let times: Vec<u64> = (1..=expected.len() as u64).map(|n| event(programs, n).time).collect();
        assert!(times.is_sorted() && times[0] > 0, "{times:?}");
    });
}

#[test]
fn whichever_side_ends_a_connection_and_however_it_is_told_by_whose_packet() {
    for net in nets() {
        for (end, verdict, reset) in [
            (&[("AF", false), ("AF", true)][..], Verdict::Forwarded, false),
            (&[("AF", true), ("AF", false)], Verdict::Replied, false),
            (&[("R", true), ("R", false)], Verdict::Forwarded, true),
            (&[("R", false), ("R", true)], Verdict::Replied, true),
        ] {
            let mut programs = Programs::load();
            programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1)]));
            listen(&mut programs, &[EventKind::Closed]);
            converse(&mut programs, &net, TCP, end);
            let ends = [net.client, net.vip, net.backends[0]];
            assert_eq!(told(&mut programs), [(EventKind::Closed, verdict, ends)]);
            assert_eq!(event(&mut programs, 1).state.has(FlowState::RESET), reset);
        }
    }
}

/// A connection that ends before it was established.
#[test]
fn a_refusal_by_the_backend_ends_a_flow() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1)]));
        listen(&mut programs, &EventKind::ALL);
        let syn = Segment::tcp(net.client, net.vip, "S", 1);
        programs.from_pod(&syn.bytes());
        programs.to_pod(&syn.answer(net.backends[0], "RA").bytes());
        let kinds: Vec<_> = told(&mut programs).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [EventKind::New, EventKind::Reply, EventKind::Closed]);
    }
}

#[test]
fn what_is_refused_dropped_or_passed_is_told_with_its_verdict() {
    for net in nets() {
        let mut programs = Programs::load();
        let empty = with_port(net.vip, 81);
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1)]));
        programs.add(&round_robin(&Net { vip: empty, ..net }, TCP, &[]));
        listen(&mut programs, &[EventKind::Rejected, EventKind::Dropped, EventKind::Passed]);
        let other = with_port(net.vip, 82);
        programs.from_pod(&Segment::tcp(net.client, empty, "S", 1).bytes());
        programs.from_pod(&Segment::tcp(net.client, empty, "A", 1).bytes());
        programs.from_pod(&Segment::tcp(net.client, other, "S", 1).bytes());
        programs.from_pod(&Segment::tcp(net.client, net.vip, "S", 1).bytes());
        programs.from_pod(&Segment::tcp(net.client, net.backends[0], "S", 1).bytes());
        assert_eq!(
            told(&mut programs),
            [
                (EventKind::Rejected, Verdict::Rejected, [net.client, empty, NOBODY]),
                (EventKind::Passed, Verdict::UnknownConnection, [net.client, empty, NOBODY]),
                (EventKind::Passed, Verdict::NoService, [net.client, other, NOBODY]),
                (EventKind::Dropped, Verdict::DirectTaken, [net.client, NOBODY, net.backends[0]]),
            ]
        );
    }
}

#[test]
fn a_pods_flow_to_itself_is_told_as_any() {
    for net in nets() {
        let mut programs = Programs::load();
        let own = with_port(net.client, 8080);
        programs.add(&round_robin(&net, TCP, &[(own, 1)]));
        listen(&mut programs, &[EventKind::New]);
        programs.from_pod(&Segment::tcp(net.client, net.vip, "S", 1).bytes());
        assert_eq!(told(&mut programs), [(EventKind::New, Verdict::NewFlow, [net.client, net.vip, own])]);
    }
}

#[test]
fn nobody_is_told_who_does_not_listen_or_whose_lease_is_over() {
    each_case(|net, protocol, programs| {
        converse(programs, &net, protocol, &[("R", true)]);
        assert_eq!(switch(programs).count, 0, "nobody has ever listened");
        let now = programs.now();
        let over = Switch { count: 0, leases: [lease(now); 6], pad: [0; 5] };
        set_switch(programs, over);
        let other = Net { client: with_port(net.client, 40_001), ..net };
        converse(programs, &other, protocol, &[("R", true)]);
        assert_eq!(switch(programs).count, 0, "the last listener is gone");
        listen(programs, &[EventKind::Rejected]);
        let third = Net { client: with_port(net.client, 40_002), ..net };
        converse(programs, &third, protocol, &[("R", true)]);
        assert_eq!(switch(programs).count, 0, "someone listens to something else");
        assert!(programs.flows_in(Place::Transient).0.len() >= 3);
    });
}

#[test]
fn the_ring_goes_round_and_its_numbers_tell() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, UDP, &[(net.backends[0], 1)]));
        listen(&mut programs, &[EventKind::New]);
        for port in 1..=EVENTS as u16 + 3 {
            programs.from_pod(&Segment::udp(with_port(net.client, port), net.vip).bytes());
        }
        let count = switch(&mut programs).count;
        assert_eq!(count, u64::from(EVENTS) + 3);
        for sequence in 4..=count {
            let event = event(&mut programs, sequence);
            assert_eq!(u64::from(event.client_port.get()), sequence);
        }
        assert_eq!(switch(&mut programs).leases[1..], [0; 5], "the ring begins behind the switch");
    }
}
