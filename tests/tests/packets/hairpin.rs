//! A pod that calls itself through a VIP: its packets turn round at its own interface.

use super::{
    TCP, UDP, nets, opening,
    programs::{Place, Programs, hairpin_address},
    round_robin,
};
use crate::wire::Segment;
use mcs_proxy_ebpf::abi::{FlowState, Verdict};
use std::net::SocketAddr;

/// The two stations of every packet the tests build: the pod's and the gateway's.
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Runs a packet from the pod that must come back to it as the other.
#[track_caller]
fn assert_turns_round(programs: &mut Programs, sent: &Segment, back: &Segment, verdict: Verdict) {
    let outcome = programs.from_pod(&sent.bytes());
    assert_eq!(outcome.verdict, verdict);
    assert_eq!((&outcome.bytes[..6], &outcome.bytes[6..12]), (&POD_MAC[..], &GATEWAY_MAC[..]));
    assert_eq!(&Segment::parse(&outcome.bytes), back);
    // On its way out it meets the other program.
    let bytes = outcome.bytes;
    let outcome = programs.to_pod(&bytes);
    assert!(matches!(outcome.verdict, Verdict::NotOurs | Verdict::NoFlow), "{outcome:?}");
    assert_eq!(outcome.bytes, bytes);
}

#[test]
fn a_pod_reaches_itself_and_both_ends_see_one_conversation() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            let itself = SocketAddr::new(net.client.ip(), 8080);
            programs.add(&round_robin(&net, protocol, &[(itself, 1)]));
            let reserved = SocketAddr::new(hairpin_address(net.vip.is_ipv4()), net.client.port());

            let call = opening(protocol, net.client, net.vip, 5);
            let arrives = Segment { from: reserved, to: itself, ..call.clone() };
            for _ in 0..2 {
                assert_turns_round(&mut programs, &call, &arrives, Verdict::HairpinForwarded);
            }
            let answer = arrives.answer(itself, "SA");
            let returns = Segment { from: net.vip, to: net.client, ..answer.clone() };
            assert_turns_round(&mut programs, &answer, &returns, Verdict::HairpinReplied);
            assert_eq!(programs.pairs(), (1, 1));
            let counters = programs.service_counters(1);
            assert_eq!((counters.flows, counters.packets_in, counters.packets_out), (1, 2, 1));
            assert_eq!(programs.backend_counters(1).first_replies, 1);
            if protocol == UDP {
                continue;
            }
            // Its life is that of any flow.
            let ack = Segment::tcp(net.client, net.vip, "A", 6);
            let arrives = Segment { from: reserved, to: itself, ..ack.clone() };
            assert_turns_round(&mut programs, &ack, &arrives, Verdict::HairpinForwarded);
            assert!(programs.flow_state().has(FlowState::ESTABLISHED.with(FlowState::HAIRPIN)));
            assert_turns_round(&mut programs, &ack, &arrives, Verdict::HairpinForwarded);
            let fin = Segment::tcp(itself, reserved, "AF", 9);
            let returns = Segment { from: net.vip, to: net.client, ..fin.clone() };
            assert_turns_round(&mut programs, &fin, &returns, Verdict::HairpinReplied);
            let fin = Segment::tcp(net.client, net.vip, "AF", 6);
            let arrives = Segment { from: reserved, to: itself, ..fin.clone() };
            assert_turns_round(&mut programs, &fin, &arrives, Verdict::HairpinForwarded);
            assert!(programs.flow_state().is_closed());
            assert_eq!(programs.flows_in(Place::Established).0.len(), 0, "what is closed is transient");
        }
    }
}

#[test]
fn what_answers_nothing_passes() {
    for net in nets() {
        let mut programs = Programs::load();
        let itself = SocketAddr::new(net.client.ip(), 8080);
        programs.add(&round_robin(&net, TCP, &[(itself, 1)]));
        let reserved = SocketAddr::new(hairpin_address(net.vip.is_ipv4()), net.client.port());
        let stray = Segment::tcp(itself, reserved, "SA", 1).bytes();
        super::assert_untouched(&mut programs, "from_pod", &stray, Verdict::NoFlow);
    }
}

#[test]
fn a_pod_among_several_backends_is_only_one_of_them() {
    for net in nets() {
        let mut programs = Programs::load();
        let itself = SocketAddr::new(net.client.ip(), 8080);
        programs.add(&round_robin(&net, UDP, &[(net.backends[0], 1), (itself, 2)]));
        let verdicts = [40_000, 40_001, 40_002, 40_003].map(|port| {
            let call = opening(UDP, super::with_port(net.client, port), net.vip, 1);
            programs.from_pod(&call.bytes()).verdict
        });
        let [other, own] = [Verdict::NewFlow, Verdict::HairpinForwarded];
        assert_eq!(verdicts, [other, own, other, own]);
    }
}
