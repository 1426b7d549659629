//! 29 connections are 15 and 14, whatever else the wire brings meanwhile.

use crate::{
    Net, TCP, assert_comes_from, assert_goes_to, nets,
    programs::{Place, Programs},
    round_robin,
    wire::Segment,
    with_port,
};
use mcs_proxy_ebpf::abi::{BackendState, Liveness, Verdict};

/// How a connection goes on after its first SYN.
const LIVES: [fn(&mut Programs, &Net, usize); 6] = [
    // Answered at once, and stays open.
    |programs, net, backend| {
        shake_hands(programs, net, backend);
    },
    // The answer is late.
    |programs, net, backend| {
        for _ in 0..3 {
            assert_goes_to(programs, &from_client(net, "S"), net.backends[backend], Verdict::Forwarded);
        }
        shake_hands(programs, net, backend);
        assert_goes_to(programs, &from_client(net, "S"), net.backends[backend], Verdict::Forwarded);
    },
    // Refused.
    |programs, net, backend| {
        answer(programs, net, backend, "R");
        assert_goes_to(programs, &from_client(net, "S"), net.backends[backend], Verdict::Forwarded);
    },
    // Reset by the client.
    |programs, net, backend| {
        shake_hands(programs, net, backend);
        assert_goes_to(programs, &from_client(net, "R"), net.backends[backend], Verdict::Forwarded);
        answer(programs, net, backend, "A");
    },
    // Closed by both, the client's last ACK twice.
    |programs, net, backend| {
        shake_hands(programs, net, backend);
        assert_goes_to(programs, &from_client(net, "AF"), net.backends[backend], Verdict::Forwarded);
        answer(programs, net, backend, "AF");
        for _ in 0..2 {
            assert_goes_to(programs, &from_client(net, "A"), net.backends[backend], Verdict::Forwarded);
        }
    },
    // Half closed by the backend.
    |programs, net, backend| {
        shake_hands(programs, net, backend);
        answer(programs, net, backend, "AF");
        assert_goes_to(programs, &from_client(net, "A"), net.backends[backend], Verdict::Forwarded);
    },
];

fn from_client(net: &Net, flags: &'static str) -> Segment {
    Segment::tcp(net.client, net.vip, flags, if flags == "S" { 7 } else { 8 })
}

#[track_caller]
fn answer(programs: &mut Programs, net: &Net, backend: usize, flags: &'static str) {
    assert_comes_from(programs, &from_client(net, "S").answer(net.backends[backend], flags), net.vip);
}

#[track_caller]
fn shake_hands(programs: &mut Programs, net: &Net, backend: usize) {
    answer(programs, net, backend, "SA");
    assert_goes_to(programs, &from_client(net, "A"), net.backends[backend], Verdict::Forwarded);
}

#[test]
fn retransmits_resets_and_closes_take_no_turn_of_twenty_nine() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1), (net.backends[1], 2)]));
        for round in 0..29_u16 {
            let backend = usize::from(round) % 2;
            let net = Net { client: with_port(net.client, 40_000 + round), ..net };
            assert_goes_to(&mut programs, &from_client(&net, "S"), net.backends[backend], Verdict::NewFlow);
            LIVES[usize::from(round) % LIVES.len()](&mut programs, &net, backend);
            // Of a connection from before us, from a port that a flow of ours will have: no turn either.
            let old = Segment::tcp(with_port(net.client, 50_000 + round), net.vip, "A", 1).bytes();
            assert_eq!(programs.from_pod(&old).verdict, Verdict::UnknownConnection);
        }
        let turns = [1, 2].map(|backend| programs.backend_counters(backend).flows);
        assert_eq!((programs.service_counters(1).flows, turns), (29, [15, 14]));
        assert_eq!(programs.pairs(), (29, 29));
    }
}

/// Ports come round again: each is a new connection, and takes its turn, in whatever state the old one is.
#[test]
fn twenty_nine_connections_from_three_ports_are_15_and_14() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1), (net.backends[1], 2)]));
        for round in 0..29_u16 {
            let client = with_port(net.client, 40_000 + round % 3);
            let backend = net.backends[usize::from(round) % 2];
            let syn = Segment::tcp(client, net.vip, "S", 1000 + u32::from(round));
            assert_goes_to(&mut programs, &syn, backend, Verdict::NewFlow);
            assert_goes_to(&mut programs, &syn, backend, Verdict::Forwarded);
            assert_comes_from(&mut programs, &syn.answer(backend, "SA"), net.vip);
            for flags in [&["A"][..], &["A", "R"], &["A", "AF"], &[]][usize::from(round) % 4] {
                let segment = Segment::tcp(client, net.vip, flags, 2000);
                assert_goes_to(&mut programs, &segment, backend, Verdict::Forwarded);
            }
        }
        let turns = [1, 2].map(|backend| programs.backend_counters(backend).flows);
        assert_eq!(turns, [15, 14]);
        assert_eq!(programs.pairs(), (3, 3));
    }
}

/// The id of a flow's backend has passed to another: the connection keeps its own address, and a datagram that
/// remembers an address nobody answers for any more selects anew.
#[test]
fn a_flow_of_another_generation_never_follows_the_id() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1), (net.backends[1], 2)]));
        assert_goes_to(&mut programs, &from_client(&net, "S"), net.backends[0], Verdict::NewFlow);
        shake_hands(&mut programs, &net, 0);
        assert_eq!(programs.flows_in(Place::Established).0.len(), 1);
        for state in [BackendState::new(9, Liveness::Live), BackendState::default()] {
            programs.set_backend(1, state);
            assert_goes_to(&mut programs, &from_client(&net, "A"), net.backends[0], Verdict::Forwarded);
            answer(&mut programs, &net, 0, "A");
        }
    }
}
