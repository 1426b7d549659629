//! What a flow looks like on the wire, where the VIP is gone, is one conversation's alone.

use super::{
    Net, TCP, UDP, assert_comes_from, assert_goes_to, assert_untouched, each_case,
    icmp::{self, Message},
    nets, opening,
    programs::{Frontend, POD, Place, Programs, SMALL},
    round_robin, with_port,
};
use crate::wire::{Segment, redirect};
use mcs_proxy_ebpf::abi::{MapSizes, Verdict};
use std::net::SocketAddr;

/// A second VIP with the backends given.
fn add_other_vip(
    programs: &mut Programs,
    net: &Net,
    protocol: u8,
    slots: &[(SocketAddr, u32)],
) -> SocketAddr {
    let vip = with_port(net.vip, 8081);
    programs.add(&Frontend { vip, ..round_robin(net, protocol, slots) });
    vip
}

/// Nothing leaves the program but a drop.
#[track_caller]
fn assert_dropped(programs: &mut Programs, program: &str, bytes: &[u8], verdict: Verdict) {
    assert_eq!(programs.run(program, bytes, POD).verdict, verdict);
}

/// Opens a flow to the only backend's other VIP, by a tuple that is taken, and returns the port it goes on from.
fn open_shifted(net: &Net, protocol: u8, programs: &mut Programs) -> (Segment, SocketAddr) {
    let other_vip = add_other_vip(programs, net, protocol, &[(net.backends[0], 1)]);
    let first = opening(protocol, net.client, net.vip, 1);
    assert_goes_to(programs, &first, net.backends[0], Verdict::NewFlow);
    let second = opening(protocol, net.client, other_vip, 1);
    let outcome = programs.from_pod(&second.bytes());
    assert_eq!(outcome.verdict, Verdict::NewFlow);
    let sent = Segment::parse(&outcome.bytes);
    assert_eq!(sent, Segment { from: sent.from, to: net.backends[0], ..second.clone() });
    assert_eq!(sent.from.ip(), net.client.ip());
    assert!(sent.from.port() >= 61_000, "above the pod's own ports: {}", sent.from);
    (second, sent.from)
}

#[test]
fn a_flow_whose_tuple_is_taken_gets_another_backend() {
    each_case(|net, protocol, programs| {
        let slots = [(net.backends[0], 1), (net.backends[1], 2)];
        let other_vip = add_other_vip(programs, &net, protocol, &slots);
        let first = opening(protocol, net.client, net.vip, 1);
        assert_goes_to(programs, &first, net.backends[0], Verdict::NewFlow);
        // Its own first turn would be the same backend.
        let second = opening(protocol, net.client, other_vip, 1);
        assert_goes_to(programs, &second, net.backends[1], Verdict::NewFlow);
        assert_goes_to(programs, &second, net.backends[1], Verdict::Forwarded);
        assert_comes_from(programs, &first.answer(net.backends[0], "SA"), net.vip);
        assert_comes_from(programs, &second.answer(net.backends[1], "SA"), other_vip);
        assert_eq!(programs.pairs(), (2, 2));
    });
}

#[test]
fn a_flow_without_another_backend_gets_another_source_port() {
    each_case(|net, protocol, programs| {
        let (second, wire) = open_shifted(&net, protocol, programs);
        // Every packet of it goes on from there, also once it is established, and its answers find the pod's port.
        let goes_on = |programs: &mut Programs, segment: &Segment| {
            let outcome = programs.from_pod(&segment.bytes());
            assert_eq!(outcome.verdict, Verdict::Forwarded);
            let expected = Segment { from: wire, to: net.backends[0], ..segment.clone() };
            assert_eq!(Segment::parse(&outcome.bytes), expected);
        };
        let comes_back = |programs: &mut Programs, flags| {
            let answer = Segment { to: wire, ..second.answer(net.backends[0], flags) };
            let outcome = programs.to_pod(&answer.bytes());
            assert_eq!(outcome.verdict, Verdict::Replied);
            let expected = Segment { from: second.to, to: net.client, ..answer };
            assert_eq!(Segment::parse(&outcome.bytes), expected);
        };
        goes_on(programs, &second);
        comes_back(programs, "SA");
        if protocol == TCP {
            let ack = Segment::tcp(net.client, second.to, "A", 2);
            goes_on(programs, &ack);
            assert_eq!(programs.flows_in(Place::Established).1.len(), 1);
            goes_on(programs, &ack);
            comes_back(programs, "A");
            goes_on(programs, &Segment::tcp(net.client, second.to, "AF", 2));
            comes_back(programs, "AF");
            assert_eq!(programs.flows_in(Place::Established).1.len(), 0, "both halves went with the end");
        }
        // The flow that had the tuple is as it was.
        let first = opening(protocol, net.client, net.vip, 1);
        assert_goes_to(programs, &first, net.backends[0], Verdict::Forwarded);
        assert_comes_from(programs, &first.answer(net.backends[0], "SA"), net.vip);
        assert_eq!(programs.pairs(), (2, 2));
    });
}

#[test]
fn a_tuple_is_free_once_its_flow_is_closing() {
    for net in nets() {
        let mut programs = Programs::load();
        let slots = [(net.backends[0], 1)];
        programs.add(&round_robin(&net, TCP, &slots));
        let other_vip = add_other_vip(&mut programs, &net, TCP, &slots);
        let first = Segment::tcp(net.client, net.vip, "S", 1);
        assert_goes_to(&mut programs, &first, net.backends[0], Verdict::NewFlow);
        programs.from_pod(&Segment::tcp(net.client, net.vip, "R", 2).bytes());
        let second = Segment::tcp(net.client, other_vip, "S", 1);
        assert_goes_to(&mut programs, &second, net.backends[0], Verdict::NewFlow);
        assert_comes_from(&mut programs, &second.answer(net.backends[0], "SA"), other_vip);
        assert_eq!(programs.pairs(), (1, 1));
    }
}

#[test]
fn a_flow_that_finds_no_free_tuple_is_dropped_and_leaves_nothing_behind() {
    for net in nets() {
        let mut programs = Programs::load_with(MapSizes { transient: 16_384, ..SMALL });
        let slots = [(net.backends[0], 1)];
        programs.add(&round_robin(&net, TCP, &slots));
        let other_vip = add_other_vip(&mut programs, &net, TCP, &slots);
        let first = Segment::tcp(net.client, net.vip, "S", 1);
        assert_goes_to(&mut programs, &first, net.backends[0], Verdict::NewFlow);
        programs.copy_flow_to_ports(61_000..=u16::MAX);
        let before = programs.pairs();
        let second = Segment::tcp(net.client, other_vip, "S", 1);
        assert_dropped(&mut programs, "from_pod", &second.bytes(), Verdict::TupleTaken);
        assert_eq!(programs.pairs(), before);
    }
}

#[test]
fn an_error_about_a_flow_with_another_source_port_names_the_pods_own() {
    each_case(|net, protocol, programs| {
        let (second, wire) = open_shifted(&net, protocol, programs);
        let sent = Segment { from: wire, to: net.backends[0], ..second.clone() };
        let (kind, rest) = icmp::errors(&net)[0];
        let quote = icmp::ip(&sent.bytes());
        let error = Message { from: icmp::router(&net), to: net.client.ip(), kind, rest, body: quote };
        let outcome = programs.to_pod(&error.bytes());
        assert_eq!(outcome.verdict, Verdict::IcmpTranslated);
        assert_eq!(Message::parse(&outcome.bytes).quoted(), second);

        // And the pod's, about an answer.
        let answer = Segment { to: wire, ..second.answer(net.backends[0], "SA") };
        let delivered = programs.to_pod(&answer.bytes()).bytes;
        let body = icmp::ip(&delivered);
        let error = Message { from: net.client.ip(), to: second.to.ip(), kind, rest, body };
        let outcome = programs.from_pod(&error.bytes());
        assert_eq!(outcome.verdict, Verdict::IcmpTranslated);
        assert_eq!(Message::parse(&outcome.bytes).quoted(), answer);
    });
}

#[test]
fn a_direct_syn_by_the_tuple_of_a_flow_is_dropped_until_the_flow_closes() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1)]));
        let flow = Segment::tcp(net.client, net.vip, "S", 1);
        let direct = Segment::tcp(net.client, net.backends[0], "S", 9);
        assert_untouched(&mut programs, "from_pod", &direct.bytes(), Verdict::NotOurs);
        assert_goes_to(&mut programs, &flow, net.backends[0], Verdict::NewFlow);
        assert_dropped(&mut programs, "from_pod", &direct.bytes(), Verdict::DirectTaken);
        // Established as well.
        assert_comes_from(&mut programs, &flow.answer(net.backends[0], "SA"), net.vip);
        let ack = Segment::tcp(net.client, net.vip, "A", 2);
        assert_goes_to(&mut programs, &ack, net.backends[0], Verdict::Forwarded);
        assert_dropped(&mut programs, "from_pod", &direct.bytes(), Verdict::DirectTaken);
        // Other ports, and packets of connections that are there, go on.
        let other = Segment::tcp(with_port(net.client, 40_001), net.backends[0], "S", 9);
        assert_untouched(&mut programs, "from_pod", &other.bytes(), Verdict::NotOurs);
        let ack = Segment::tcp(net.client, net.backends[0], "A", 9).bytes();
        assert_untouched(&mut programs, "from_pod", &ack, Verdict::NotOurs);
        // Another pod neither is in the way nor ends it.
        let elsewhere = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        assert_eq!(programs.run("from_pod", &direct.bytes(), elsewhere).verdict, Verdict::NotOurs);
        assert_eq!(programs.pairs(), (1, 1));

        programs.from_pod(&Segment::tcp(net.client, net.vip, "R", 2).bytes());
        assert_untouched(&mut programs, "from_pod", &direct.bytes(), Verdict::NotOurs);
        assert_eq!(programs.pairs(), (0, 0), "the closing pair made way");
        let answer = direct.answer(net.backends[0], "SA").bytes();
        assert_untouched(&mut programs, "to_pod", &answer, Verdict::NoFlow);
    }
}

/// A socket that calls the VIP and then the backend that it has heard of there.
#[test]
fn a_direct_datagram_by_the_tuple_of_a_flow_ends_the_flow() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, UDP, &[(net.backends[0], 1)]));
        let elsewhere = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        let by_vip = Segment::udp(net.client, net.vip);
        let direct = Segment::udp(net.client, net.backends[0]);
        let answer = direct.answer(net.backends[0], "");
        assert_untouched(&mut programs, "from_pod", &direct.bytes(), Verdict::NotOurs);
        // A flow that is new, and one that is established: by its first datagram after two seconds.
        for ticks in [0, 3] {
            assert_goes_to(&mut programs, &by_vip, net.backends[0], Verdict::NewFlow);
            assert_comes_from(&mut programs, &answer, net.vip);
            programs.wait_ticks(ticks);
            assert_goes_to(&mut programs, &by_vip, net.backends[0], Verdict::Forwarded);
            assert_eq!(programs.flows_in(Place::Established).0.len(), usize::from(ticks > 0));
            // Neither another port's nor another pod's is meant.
            let other = Segment::udp(with_port(net.client, 40_001), net.backends[0]);
            assert_untouched(&mut programs, "from_pod", &other.bytes(), Verdict::NotOurs);
            assert_eq!(programs.run("from_pod", &direct.bytes(), elsewhere).verdict, Verdict::NotOurs);
            assert_comes_from(&mut programs, &answer, net.vip);

            assert_untouched(&mut programs, "from_pod", &direct.bytes(), Verdict::NotOurs);
            assert_untouched(&mut programs, "to_pod", &answer.bytes(), Verdict::NoFlow);
            assert_eq!(programs.pairs(), (0, 0));
            assert_eq!(programs.share(POD), 0);
        }
    }
}

#[test]
fn the_hosts_redirect_about_a_translated_packet_is_dropped_and_others_pass() {
    each_case(|net, protocol, programs| {
        let gateway = with_port(net.stranger, 0).ip();
        let sent = opening(protocol, net.client, net.vip, 1);
        assert_goes_to(programs, &sent, net.backends[0], Verdict::NewFlow);
        let other = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        for with_mac in [false, true] {
            let about = |to| redirect(gateway, &Segment { to, ..sent.clone() }, with_mac);
            assert_dropped(programs, "to_pod", &about(net.backends[0]), Verdict::HostRedirect);
            assert_untouched(programs, "to_pod", &about(net.backends[1]), Verdict::NotOurs);
            let elsewhere = programs.run("to_pod", &about(net.backends[0]), other);
            assert_eq!(elsewhere.verdict, Verdict::NotOurs);
        }
    });
}
