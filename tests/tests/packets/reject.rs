//! What a pod hears that calls a frontend without backends.

use crate::{
    Net, assert_comes_from, assert_goes_to, assert_untouched,
    icmp::{Message, TCP, UDP},
    nets, opening,
    programs::{Place, Programs},
    round_robin,
    wire::{Kind, Segment, verify},
};
use etherparse::{IpNumber, SlicedPacket, TransportSlice};
use mcs_proxy_ebpf::abi::{FlowState, REJECTS_PER_TICK, VIP_WHOLE, Verdict};
use std::net::SocketAddr;

/// A frontend without backends.
fn empty(net: &Net, protocol: u8) -> Programs {
    let mut programs = Programs::load();
    programs.add(&round_robin(net, protocol, &[]));
    programs
}

fn header(net: &Net) -> usize {
    if net.vip.is_ipv4() { 20 } else { 40 }
}

#[test]
fn a_syn_is_refused_with_a_reset_that_acknowledges_it() {
    for net in nets() {
        let mut programs = empty(&net, TCP);
        // What it carries is acknowledged too.
        for payload in [0, 1, 2, 700] {
            for sequence in [0, 7, u32::MAX] {
                let payload = vec![1; payload];
                let occupied = 1 + u32::try_from(payload.len()).unwrap();
                let syn = Segment { payload, ..Segment::tcp(net.client, net.vip, "S", sequence) };
                let outcome = programs.from_pod(&syn.bytes());
                assert_eq!(outcome.verdict, Verdict::Rejected);
                let packet = SlicedPacket::from_ethernet(&outcome.bytes).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("{packet:?}") };
                verify(&outcome.bytes, net.vip.ip(), net.client.ip(), IpNumber::TCP);
                assert_eq!(tcp.source_port(), net.vip.port());
                assert_eq!(tcp.destination_port(), net.client.port());
                assert_eq!(tcp.slice()[13], 0x14, "RST and ACK, nothing else");
                assert_eq!(tcp.sequence_number(), 0);
                assert_eq!(tcp.acknowledgment_number(), sequence.wrapping_add(occupied));
                assert!(tcp.payload().is_empty());
                assert_eq!(outcome.bytes.len(), 14 + header(&net) + 20);
                assert!(outcome.bytes.len() <= syn.bytes().len());
                assert_eq!(outcome.bytes[..12], [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat());
                if net.vip.is_ipv4() {
                    let ip = etherparse::Ipv4Header::from_slice(&outcome.bytes[14..]).unwrap().0;
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                }
            }
        }
        assert_eq!(programs.pairs(), (0, 0));
    }
}

#[test]
fn a_packet_of_a_connection_that_was_ended_is_reset_and_a_new_one_begins() {
    for (net, place) in
        nets().into_iter().flat_map(|net| [Place::Established, Place::Transient].map(|place| (net, place)))
    {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1), (net.backends[1], 2)]));
        let syn = Segment::tcp(net.client, net.vip, "S", 5);
        programs.from_pod(&syn.bytes());
        programs.to_pod(&syn.answer(net.backends[0], "SA").bytes());
        if place == Place::Established {
            programs.from_pod(&Segment::tcp(net.client, net.vip, "A", 6).bytes());
        }
        programs.add_to_flows(place, FlowState::CUT);
        for (payload, flags) in [(vec![], "A"), (vec![1; 700], "A"), (vec![], "AF"), (vec![7], "A")] {
            let segment = Segment { payload, ..Segment::tcp(net.client, net.vip, flags, 6) };
            let mut bytes = segment.bytes();
            let at = 14 + header(&net) + 8;
            bytes[at..at + 4].copy_from_slice(&[1, 2, 3, 4]);
            let outcome = programs.from_pod(&bytes);
            assert_eq!(outcome.verdict, Verdict::Ended);
            let packet = SlicedPacket::from_ethernet(&outcome.bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("{packet:?}") };
            verify(&outcome.bytes, net.vip.ip(), net.client.ip(), IpNumber::TCP);
            assert_eq!((tcp.source_port(), tcp.destination_port()), (net.vip.port(), net.client.port()));
            assert_eq!(tcp.slice()[13], 0x04, "RST, nothing else");
            assert_eq!(tcp.sequence_number(), 0x0102_0304, "what the pod expects next");
            assert!(tcp.payload().is_empty());
        }
        let again = Segment::tcp(net.client, net.vip, "S", 900);
        assert_goes_to(&mut programs, &again, net.backends[1], Verdict::NewFlow);
        assert_comes_from(&mut programs, &again.answer(net.backends[1], "SA"), net.vip);
        let ack = Segment::tcp(net.client, net.vip, "A", 901);
        assert_goes_to(&mut programs, &ack, net.backends[1], Verdict::Forwarded);
    }
}

/// RFC 9293, section 3.10.7.1: a RST is never answered by another. The backend has not heard of the end yet.
#[test]
fn a_reset_of_a_connection_that_was_ended_is_not_answered_but_reaches_the_backend() {
    for (net, place) in
        nets().into_iter().flat_map(|net| [Place::Established, Place::Transient].map(|place| (net, place)))
    {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1)]));
        let syn = Segment::tcp(net.client, net.vip, "S", 5);
        programs.from_pod(&syn.bytes());
        programs.to_pod(&syn.answer(net.backends[0], "SA").bytes());
        if place == Place::Established {
            programs.from_pod(&Segment::tcp(net.client, net.vip, "A", 6).bytes());
        }
        programs.add_to_flows(place, FlowState::CUT);
        for flags in ["R", "AR", "R"] {
            let reset = Segment { payload: vec![], ..Segment::tcp(net.client, net.vip, flags, 6) };
            assert_goes_to(&mut programs, &reset, net.backends[0], Verdict::Forwarded);
            // Whatever is none is answered still.
            let data = Segment::tcp(net.client, net.vip, "A", 6).bytes();
            assert_eq!(programs.from_pod(&data).verdict, Verdict::Ended);
        }
    }
}

#[test]
fn a_reset_of_a_pods_connection_with_itself_that_was_ended_reaches_its_other_end() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(SocketAddr::new(net.client.ip(), 8080), 1)]));
        programs.from_pod(&Segment::tcp(net.client, net.vip, "S", 5).bytes());
        programs.add_to_flows(Place::Transient, FlowState::CUT);
        let reset = Segment::tcp(net.client, net.vip, "R", 6).bytes();
        assert_eq!(programs.from_pod(&reset).verdict, Verdict::HairpinForwarded);
    }
}

#[test]
fn a_connection_of_a_pod_with_itself_can_be_ended() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(SocketAddr::new(net.client.ip(), 8080), 1)]));
        let syn = Segment::tcp(net.client, net.vip, "S", 5).bytes();
        assert_eq!(programs.from_pod(&syn).verdict, Verdict::HairpinForwarded);
        programs.add_to_flows(Place::Transient, FlowState::CUT);
        let ack = Segment::tcp(net.client, net.vip, "A", 6).bytes();
        assert_eq!(programs.from_pod(&ack).verdict, Verdict::Ended);
    }
}

#[test]
fn nothing_but_a_syn_is_reset() {
    for net in nets() {
        let mut programs = empty(&net, TCP);
        for flags in ["A", "AF", "R", "SA"] {
            let packet = Segment::tcp(net.client, net.vip, flags, 9).bytes();
            assert_untouched(&mut programs, "from_pod", &packet, Verdict::UnknownConnection);
        }
    }
}

#[test]
fn a_datagram_is_unreachable_and_quoted() {
    for net in nets() {
        let mut programs = empty(&net, UDP);
        let least = header(&net) + 8;
        for length in [least, least + 1, 600, 1400] {
            let datagram =
                Segment { payload: vec![b'x'; length], ..Segment::udp(net.client, net.vip) }.bytes();
            let outcome = programs.from_pod(&datagram);
            assert_eq!(outcome.verdict, Verdict::Rejected);
            let expected = Message {
                from: net.vip.ip(),
                to: net.client.ip(),
                kind: if net.vip.is_ipv4() { [3, 3] } else { [1, 4] },
                rest: [0; 4],
                body: datagram[14..14 + least].to_vec(),
            };
            assert_eq!(Message::parse(&outcome.bytes), expected);
            assert!(outcome.bytes.len() <= datagram.len());
        }
        assert_eq!(programs.pairs(), (0, 0));
    }
}

/// As kube-proxy refuses other ports of a ClusterIP.
#[test]
fn a_port_that_nobody_has_is_refused_if_the_vip_is_wholly_ours_and_passes_if_not() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            programs.add(&round_robin(&net, protocol, &[(net.backends[0], 1)]));
            let other = SocketAddr::new(net.vip.ip(), net.vip.port() + 1);
            let mut wrong_port = opening(protocol, net.client, other, 1);
            let mut wrong_protocol = opening(if protocol == TCP { UDP } else { TCP }, net.client, net.vip, 1);
            for call in [&mut wrong_port, &mut wrong_protocol] {
                call.payload = vec![7; 100];
            }
            for (flags, verdict) in [(0, Verdict::NoService), (VIP_WHOLE, Verdict::Rejected)] {
                programs.set_vip(net.vip, flags);
                for call in [&wrong_port, &wrong_protocol] {
                    assert_eq!(programs.from_pod(&call.bytes()).verdict, verdict);
                }
                for middle in ["A", "AF", "R", "SA"] {
                    let packet = Segment::tcp(net.client, other, middle, 9).bytes();
                    assert_untouched(&mut programs, "from_pod", &packet, Verdict::NoService);
                }
            }
            let right = opening(protocol, net.client, net.vip, 1);
            assert_eq!(programs.from_pod(&right.bytes()).verdict, Verdict::NewFlow);
        }
    }
}

#[test]
fn a_datagram_smaller_than_an_answer_passes() {
    for net in nets() {
        let mut programs = empty(&net, UDP);
        for length in [0, header(&net) + 7] {
            let datagram = Segment { payload: vec![0; length], ..Segment::udp(net.client, net.vip) };
            assert_eq!(datagram.kind, Kind::Udp);
            assert_untouched(&mut programs, "from_pod", &datagram.bytes(), Verdict::NoBackend);
        }
    }
}

#[test]
fn an_interface_gets_so_many_answers_in_a_tick_and_another_its_own() {
    for net in nets() {
        let mut programs = empty(&net, TCP);
        let other = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        let syn = Segment::tcp(net.client, net.vip, "S", 1).bytes();
        programs.wait_ticks(1);
        // Ticks may pass meanwhile, but not many.
        let limited = (0..20 * REJECTS_PER_TICK)
            .position(|_| programs.from_pod(&syn).verdict == Verdict::RejectLimited)
            .expect("a limit");
        assert!(limited >= REJECTS_PER_TICK as usize, "{limited}");
        assert_eq!(programs.run("from_pod", &syn, other).verdict, Verdict::Rejected);
        programs.wait_ticks(1);
        assert_eq!(programs.from_pod(&syn).verdict, Verdict::Rejected);
    }
}
