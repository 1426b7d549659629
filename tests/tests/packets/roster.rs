//! Established flows that have been silent for too long, and no daemon that would collect them.

use crate::{
    Net, TCP, UDP, assert_comes_from, assert_goes_to, nets,
    programs::{POD, Place, Programs},
    round_robin,
    wire::Segment,
    with_port,
};
use mcs_proxy_ebpf::abi::{MapSizes, Verdict};

const SIZES: MapSizes = MapSizes {
    frontends: 16,
    elements: 64,
    backend_ids: 16,
    flows: 64,
    transient: 256,
    affinity: 16,
    fragments: 16,
    sockets: 8,
};

/// Longer than any timeout: TCP's five days, four ticks a second.
const AGES: u32 = 5 * 432_000;

fn each_family(protocol: u8, sizes: MapSizes, check: impl Fn(Net, &mut Programs)) {
    for net in nets() {
        let mut programs = Programs::load_with(sizes);
        programs.add(&round_robin(&net, protocol, &[(net.backends[0], 1)]));
        check(net, &mut programs);
    }
}

/// SYN, SYN-ACK, ACK of a connection from the port given.
fn shake_hands(programs: &mut Programs, net: &Net, port: u16, isn: u32) {
    let client = with_port(net.client, port);
    let syn = Segment::tcp(client, net.vip, "S", isn);
    assert_goes_to(programs, &syn, net.backends[0], Verdict::NewFlow);
    assert_comes_from(programs, &syn.answer(net.backends[0], "SA"), net.vip);
    from_client(programs, net, port, "A");
}

fn from_client(programs: &mut Programs, net: &Net, port: u16, flags: &'static str) {
    let segment = Segment::tcp(with_port(net.client, port), net.vip, flags, 2);
    assert_goes_to(programs, &segment, net.backends[0], Verdict::Forwarded);
}

fn established_ports(programs: &Programs) -> Vec<u16> {
    let (flows, replies) = programs.flows_in(Place::Established);
    let mut ports: Vec<u16> = flows.keys().map(|key| key.client_port.get()).collect();
    let mut answered: Vec<u16> = replies.keys().map(|key| key.client_port.get()).collect();
    ports.sort_unstable();
    answered.sort_unstable();
    assert_eq!(ports, answered, "both halves or neither");
    ports
}

#[test]
fn silent_flows_make_way_for_new_ones_without_a_daemon() {
    each_family(TCP, MapSizes { flows: 4, ..SIZES }, |net, programs| {
        for port in 1..=4 {
            shake_hands(programs, &net, port, 1);
        }
        shake_hands(programs, &net, 5, 1);
        assert_eq!(established_ports(programs), [1, 2, 3, 4], "there is no room");
        programs.age_established(AGES);
        // Its next packet finds those that were silent, and the one after it has their place.
        from_client(programs, &net, 5, "A");
        from_client(programs, &net, 5, "A");
        assert!(established_ports(programs).contains(&5));
        for port in 6..=8 {
            shake_hands(programs, &net, port, 1);
        }
        assert_eq!(established_ports(programs), [5, 6, 7, 8]);
        assert_eq!(programs.share(POD), 4);
        // Of what was forgotten nothing is left that a late packet could find.
        let late = programs.from_pod(&Segment::tcp(with_port(net.client, 1), net.vip, "A", 2).bytes());
        assert_eq!(late.verdict, Verdict::UnknownConnection);
    });
}

#[test]
fn a_silent_datagram_flow_makes_way_too() {
    each_family(UDP, MapSizes { flows: 2, ..SIZES }, |net, programs| {
        let talk = |programs: &mut Programs, ports: [u16; 2]| {
            let datagrams = ports.map(|port| Segment::udp(with_port(net.client, port), net.vip));
            for datagram in &datagrams {
                programs.from_pod(&datagram.bytes());
                assert_comes_from(programs, &datagram.answer(net.backends[0], ""), net.vip);
            }
            programs.wait_ticks(3);
            for datagram in datagrams.iter().chain(&datagrams) {
                assert_goes_to(programs, datagram, net.backends[0], Verdict::Forwarded);
            }
        };
        talk(programs, [1, 2]);
        assert_eq!(established_ports(programs), [1, 2]);
        programs.age_established(4 * 120 + 8);
        talk(programs, [3, 4]);
        assert_eq!(established_ports(programs), [3, 4]);
    });
}

#[test]
fn a_flow_that_is_used_outlives_any_number_of_others() {
    each_family(TCP, SIZES, |net, programs| {
        shake_hands(programs, &net, 1, 1);
        for port in 2..1000 {
            shake_hands(programs, &net, port, 1);
            from_client(programs, &net, port, "R");
        }
        assert_eq!(established_ports(programs), [1]);
        assert_eq!(programs.verdict(Verdict::NotPromoted), 0, "whoever has ended is no burden");
    });
}

#[test]
fn a_client_that_uses_one_port_again_and_again_takes_no_others_place() {
    each_family(TCP, SIZES, |net, programs| {
        // Two connections by turns, each of which ends the one before it.
        for isn in 0..2000 {
            shake_hands(programs, &net, 1, isn % 2 + 1);
        }
        for port in 2..=40 {
            shake_hands(programs, &net, port, 1);
            // Should it be refused at first, it is not for long.
            from_client(programs, &net, port, "A");
            from_client(programs, &net, port, "A");
        }
        assert_eq!(established_ports(programs).len(), 40);
    });
}
