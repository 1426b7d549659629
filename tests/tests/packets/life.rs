//! A flow's life: where it is kept from its first packet to its last.

use crate::{
    Net, TCP, UDP, assert_comes_from, assert_goes_to, assert_untouched, nets, opening,
    programs::{FLOWS_PER_INTERFACE, POD, Place, Programs},
    round_robin,
    wire::Segment,
    with_port,
};
use mcs_proxy_ebpf::abi::{FlowState, MapSizes, Verdict};
use mcs_proxy_tests::netns;
use std::net::SocketAddr;

const SIZES: MapSizes = MapSizes {
    frontends: 16,
    elements: 64,
    backend_ids: 16,
    flows: 2048,
    transient: 256,
    affinity: 16,
    fragments: 16,
    sockets: 16,
};

/// Both families; a frontend with both backends in round robin.
fn each_family(protocol: u8, sizes: MapSizes, check: impl Fn(Net, &mut Programs)) {
    for net in nets() {
        let mut programs = Programs::load_with(sizes);
        programs.add(&round_robin(&net, protocol, &[(net.backends[0], 1), (net.backends[1], 2)]));
        check(net, &mut programs);
    }
}

/// SYN, SYN-ACK, ACK.
fn shake_hands(programs: &mut Programs, net: &Net, backend: SocketAddr) {
    let syn = Segment::tcp(net.client, net.vip, "S", 1);
    assert_goes_to(programs, &syn, backend, Verdict::NewFlow);
    assert_comes_from(programs, &syn.answer(backend, "SA"), net.vip);
    assert_goes_to(programs, &Segment::tcp(net.client, net.vip, "A", 2), backend, Verdict::Forwarded);
}

fn from_client(programs: &mut Programs, net: &Net, flags: &'static str) {
    assert_goes_to(
        programs,
        &Segment::tcp(net.client, net.vip, flags, 2),
        net.backends[0],
        Verdict::Forwarded,
    );
}

fn from_backend(programs: &mut Programs, net: &Net, flags: &'static str) {
    let syn = Segment::tcp(net.client, net.vip, "S", 1);
    assert_comes_from(programs, &syn.answer(net.backends[0], flags), net.vip);
}

#[track_caller]
fn assert_established(programs: &mut Programs, count: usize) {
    let (flows, replies) = programs.flows_in(Place::Established);
    assert_eq!((flows.len(), replies.len()), (count, count));
    assert_eq!(programs.share(POD), count as u64);
}

#[test]
fn the_clients_first_ack_after_a_syn_ack_promotes_a_tcp_flow() {
    each_family(TCP, SIZES, |net, programs| {
        let syn = Segment::tcp(net.client, net.vip, "S", 1);
        assert_goes_to(programs, &syn, net.backends[0], Verdict::NewFlow);
        assert_eq!(programs.flow_state(), FlowState::NEW);
        // Whoever acknowledges what was never sent has not seen the backend's answer.
        from_client(programs, &net, "A");
        assert_established(programs, 0);
        from_backend(programs, &net, "SA");
        assert_eq!(programs.flow_state(), FlowState::ANSWERED);
        assert_goes_to(programs, &syn, net.backends[0], Verdict::Forwarded);
        assert_established(programs, 0);
        from_client(programs, &net, "A");
        assert_established(programs, 1);
        assert!(programs.flow_state().has(FlowState::ESTABLISHED));
        from_client(programs, &net, "A");
        from_backend(programs, &net, "A");
        assert_established(programs, 1);
        assert_eq!(programs.service_counters(1).flows, 1);
    });
}

#[test]
fn two_seconds_of_datagrams_both_ways_promote_a_udp_flow() {
    each_family(UDP, SIZES, |net, programs| {
        let datagram = Segment::udp(net.client, net.vip);
        assert_goes_to(programs, &datagram, net.backends[0], Verdict::NewFlow);
        programs.wait_ticks(3);
        // One way alone does not.
        assert_goes_to(programs, &datagram, net.backends[0], Verdict::Forwarded);
        assert_established(programs, 0);
        assert_comes_from(programs, &datagram.answer(net.backends[0], ""), net.vip);
        assert_goes_to(programs, &datagram, net.backends[0], Verdict::Forwarded);
        assert_established(programs, 1);
        assert_comes_from(programs, &datagram.answer(net.backends[0], ""), net.vip);
    });
}

#[test]
fn a_question_and_its_answer_stay_transient() {
    each_family(UDP, SIZES, |net, programs| {
        for port in 1..=1000 {
            let query = Segment::udp(with_port(net.client, port), net.vip);
            let backend = net.backends[usize::from(port + 1) % 2];
            assert_goes_to(programs, &query, backend, Verdict::NewFlow);
            assert_comes_from(programs, &query.answer(backend, ""), net.vip);
        }
        assert_established(programs, 0);
    });
}

#[test]
fn one_fin_leaves_a_flow_established_and_the_second_moves_it_back() {
    for client_first in [true, false] {
        each_family(TCP, SIZES, |net, programs| {
            shake_hands(programs, &net, net.backends[0]);
            let close = |programs: &mut Programs, client: bool| {
                if client { from_client(programs, &net, "AF") } else { from_backend(programs, &net, "AF") }
            };
            close(programs, client_first);
            assert!(programs.flow_state().is_half_closed());
            // The other side may go on sending for as long as it likes.
            for _ in 0..3 {
                from_backend(programs, &net, "A");
                from_client(programs, &net, "A");
            }
            assert_established(programs, 1);
            close(programs, !client_first);
            assert!(programs.flow_state().is_closed());
            assert_established(programs, 0);
            // What is late still finds its way, and promotes nothing.
            from_client(programs, &net, "A");
            from_backend(programs, &net, "AF");
            from_client(programs, &net, "AF");
            from_backend(programs, &net, "A");
            assert_established(programs, 0);
            assert_eq!(programs.pairs(), (1, 1));
        });
    }
}

#[test]
fn a_reset_moves_a_flow_back_from_either_side() {
    for by_client in [true, false] {
        each_family(TCP, SIZES, |net, programs| {
            shake_hands(programs, &net, net.backends[0]);
            if by_client {
                from_client(programs, &net, "R");
            } else {
                from_backend(programs, &net, "R");
            }
            assert!(programs.flow_state().has(FlowState::RESET));
            assert_established(programs, 0);
            from_client(programs, &net, "A");
            assert_established(programs, 0);
        });
    }
}

#[test]
fn a_syn_with_another_sequence_number_selects_anew_in_any_state() {
    type Bring = fn(&mut Programs, &Net);
    let states: [(&str, Bring); 5] = [
        ("SYN sent", |programs, net| {
            let syn = Segment::tcp(net.client, net.vip, "S", 1);
            assert_goes_to(programs, &syn, net.backends[0], Verdict::NewFlow);
        }),
        ("established", |programs, net| shake_hands(programs, net, net.backends[0])),
        ("half-closed", |programs, net| {
            shake_hands(programs, net, net.backends[0]);
            from_client(programs, net, "AF");
        }),
        ("time-wait", |programs, net| {
            shake_hands(programs, net, net.backends[0]);
            from_client(programs, net, "AF");
            from_backend(programs, net, "AF");
        }),
        ("reset", |programs, net| {
            shake_hands(programs, net, net.backends[0]);
            from_backend(programs, net, "R");
        }),
    ];
    for (state, bring) in states {
        each_family(TCP, SIZES, |net, programs| {
            bring(programs, &net);
            let retransmit = Segment::tcp(net.client, net.vip, "S", 1);
            assert_goes_to(programs, &retransmit, net.backends[0], Verdict::Forwarded);
            let again = Segment::tcp(net.client, net.vip, "S", 99);
            assert_goes_to(programs, &again, net.backends[1], Verdict::NewFlow);
            assert_eq!(programs.pairs(), (1, 1), "{state}: nothing is left of the old flow");
            assert_established(programs, 0);
            assert_comes_from(programs, &again.answer(net.backends[1], "SA"), net.vip);
            assert_goes_to(
                programs,
                &Segment::tcp(net.client, net.vip, "A", 100),
                net.backends[1],
                Verdict::Forwarded,
            );
            assert_established(programs, 1);
        });
    }
}

/// A Service that is opted out while a connection of it is in TIME_WAIT at the backend: the client may use its port again
/// at once, and what is beneath us serves it now.
#[test]
fn a_syn_that_passes_ends_the_flow_that_had_its_tuple() {
    for (is_over, is_there) in [(true, false), (true, true), (false, false), (false, true)] {
        each_family(TCP, SIZES, |net, programs| {
            shake_hands(programs, &net, net.backends[0]);
            if is_over {
                from_backend(programs, &net, "AF");
                from_client(programs, &net, "AF");
            }
            let verdict = if is_there {
                programs.add(&round_robin(&net, TCP, &[]));
                Verdict::Rejected
            } else {
                let index = programs.add(&round_robin(&net, TCP, &[]));
                programs.publish(index, 0);
                Verdict::NoService
            };
            let late = Segment::tcp(net.client, net.vip, "S", 1);
            assert_goes_to(programs, &late, net.backends[0], Verdict::Forwarded);
            let again = Segment::tcp(net.client, net.vip, "S", 99);
            assert_eq!(programs.from_pod(&again.bytes()).verdict, verdict);
            assert_eq!(programs.pairs(), (0, 0));
            assert_established(programs, 0);
            let ack = Segment::tcp(net.client, net.vip, "A", 100);
            assert_untouched(programs, "from_pod", &ack.bytes(), Verdict::UnknownConnection);
        });
    }
}

#[test]
fn a_lost_reply_is_restored_by_the_next_packet_or_within_a_second() {
    each_family(TCP, SIZES, |net, programs| {
        let syn = Segment::tcp(net.client, net.vip, "S", 1);
        assert_goes_to(programs, &syn, net.backends[0], Verdict::NewFlow);
        programs.lose_reply(Place::Transient);
        assert_goes_to(programs, &syn, net.backends[0], Verdict::Forwarded);
        from_backend(programs, &net, "SA");
        from_client(programs, &net, "A");
        assert_established(programs, 1);
        programs.lose_reply(Place::Established);
        programs.lose_reply(Place::Transient);
        programs.wait_ticks(2);
        from_client(programs, &net, "A");
        from_backend(programs, &net, "A");
        assert_established(programs, 1);
    });
}

#[test]
fn a_flood_of_syns_leaves_established_flows_alone() {
    each_family(TCP, SIZES, |net, programs| {
        shake_hands(programs, &net, net.backends[0]);
        for port in 1..=5_000 {
            programs.from_pod(&Segment::tcp(with_port(net.client, port), net.vip, "S", 1).bytes());
        }
        from_client(programs, &net, "A");
        from_backend(programs, &net, "A");
        assert_established(programs, 1);
    });
}

#[test]
fn a_flood_of_handshakes_uses_up_its_own_interfaces_share_and_no_others() {
    each_family(TCP, SIZES, |net, programs| {
        let rude = netns::add_veth("rude", "peer").unwrap();
        for port in 1..=u16::try_from(FLOWS_PER_INTERFACE + 50).unwrap() {
            let client = with_port(net.stranger, port);
            let syn = Segment::tcp(client, net.vip, "S", 1);
            programs.run("from_pod", &syn.bytes(), rude);
            let backend = net.backends[usize::from(port + 1) % 2];
            programs.run("to_pod", &syn.answer(backend, "SA").bytes(), rude);
            programs.run("from_pod", &Segment::tcp(client, net.vip, "A", 2).bytes(), rude);
        }
        assert_eq!(programs.share(rude), u64::from(FLOWS_PER_INTERFACE));
        assert_eq!(programs.verdict(Verdict::NotPromoted), 50);
        shake_hands(programs, &net, net.backends[usize::try_from(FLOWS_PER_INTERFACE + 50).unwrap() % 2]);
        assert_eq!(programs.share(POD), 1);
    });
}

#[test]
fn full_maps_keep_what_they_have_and_leave_new_flows_transient() {
    each_family(TCP, MapSizes { flows: 2, ..SIZES }, |net, programs| {
        let hands = |programs: &mut Programs, port, backend| {
            shake_hands(programs, &Net { client: with_port(net.client, port), ..net }, backend);
        };
        for (port, backend) in [(1, 0), (2, 1), (3, 0)] {
            hands(programs, port, net.backends[backend]);
        }
        assert_established(programs, 2);
        assert_eq!(programs.verdict(Verdict::NotPromoted), 1);
        for (port, backend) in [(1, 0), (2, 1), (3, 0)] {
            let ack = Segment::tcp(with_port(net.client, port), net.vip, "A", 3);
            assert_goes_to(programs, &ack, net.backends[backend], Verdict::Forwarded);
            assert_comes_from(programs, &ack.answer(net.backends[backend], "A"), net.vip);
        }
        // Once one of them ends there is room, and the next packet takes it.
        programs.from_pod(&Segment::tcp(with_port(net.client, 1), net.vip, "R", 4).bytes());
        let ack = Segment::tcp(with_port(net.client, 3), net.vip, "A", 5);
        assert_goes_to(programs, &ack, net.backends[0], Verdict::Forwarded);
        assert_established(programs, 2);
    });
}

#[test]
fn the_same_tuple_from_another_interface_is_another_pods() {
    for protocol in [TCP, UDP] {
        each_family(protocol, SIZES, |net, programs| {
            let other = netns::add_veth("other", "peer").unwrap();
            let first = opening(protocol, net.client, net.vip, 1);
            programs.from_pod(&first.bytes());
            let outcome = programs.run("from_pod", &first.bytes(), other);
            assert_eq!(outcome.verdict, Verdict::NewFlow);
            assert_eq!(programs.pairs(), (1, 1));
            // A late answer to the pod that had the address before is nobody's.
            let late = programs.to_pod(&first.answer(net.backends[1], "SA").bytes());
            assert_eq!(late.verdict, Verdict::OtherInterface);
        });
    }
}
