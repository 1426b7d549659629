//! What a flow looks like on the wire, where the VIP is gone, is one conversation's alone.

use super::{
    Net, TCP, assert_comes_from, assert_goes_to, assert_untouched, each_case, opening,
    programs::{Frontend, POD, Programs},
    round_robin, with_port,
};
use crate::wire::{Segment, redirect};
use mcs_proxy_ebpf::abi::Verdict;
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

#[test]
fn two_open_flows_never_share_a_tuple_on_the_wire() {
    each_case(|net, protocol, programs| {
        let other_vip = add_other_vip(programs, &net, protocol, &[(net.backends[0], 1)]);
        let first = opening(protocol, net.client, net.vip, 1);
        assert_goes_to(programs, &first, net.backends[0], Verdict::NewFlow);
        let second = opening(protocol, net.client, other_vip, 1);
        assert_dropped(programs, "from_pod", &second.bytes(), Verdict::TupleTaken);
        assert_comes_from(programs, &first.answer(net.backends[0], "SA"), net.vip);
        // Once the first is closing, its tuple is free.
        if protocol == TCP {
            programs.from_pod(&Segment::tcp(net.client, net.vip, "R", 2).bytes());
            assert_goes_to(programs, &second, net.backends[0], Verdict::NewFlow);
            assert_comes_from(programs, &second.answer(net.backends[0], "SA"), other_vip);
            assert_eq!(programs.pairs(), (1, 1));
        }
    });
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
