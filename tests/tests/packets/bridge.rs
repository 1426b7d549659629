//! Client and backend on one bridge: packets go straight to the backend's MAC address, if the host knows it.

use super::{TCP, UDP, nets, opening, programs::Programs, round_robin, with_port};
use crate::wire::Segment;
use mcs_proxy_ebpf::abi::{Place, Verdict};
use std::{net::SocketAddr, process::Command};

/// What the pod sends goes to the gateway.
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 6];

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The client's veth is a port of a bridge, whose network has the second backend; the first is behind a gateway there.
/// Returns the veth's index.
fn add_bridge(programs: &mut Programs) -> u32 {
    for family in ["ipv4", "ipv6"] {
        std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").unwrap();
    }
    let veth = mcs_proxy_tests::netns::add_veth("pod", "eth0").unwrap();
    ip("link add br0 type bridge");
    ip("link set pod master br0");
    for interface in ["br0", "pod", "eth0"] {
        ip(&format!("link set {interface} up"));
    }
    ip("address add 10.12.0.1/24 dev br0");
    ip("address add fd00:10:12::1/64 dev br0 nodad");
    ip("route add 10.10.0.0/16 via 10.12.0.77");
    ip("route add fd00:10:10::/64 via fd00:10:12::77");
    for gateway in ["10.12.0.77", "fd00:10:12::77"] {
        ip(&format!("neighbour add {gateway} lladdr 02:00:00:00:00:77 dev br0 nud permanent"));
    }
    let bridge = mcs_proxy_tests::netns::index("br0").unwrap();
    programs.set_place(veth, Place { netns: -1, bridge });
    veth
}

fn learn(backend: SocketAddr) {
    ip(&format!("neighbour add {} lladdr 02:00:00:00:00:06 dev br0 nud reachable", backend.ip()));
}

/// Runs a packet from the pod and returns to which MAC address it goes.
#[track_caller]
fn sent_to(
    programs: &mut Programs,
    veth: u32,
    segment: &Segment,
    to: SocketAddr,
    verdict: Verdict,
) -> [u8; 6] {
    let outcome = programs.run("from_pod", &segment.bytes(), veth);
    assert_eq!(outcome.verdict, verdict);
    assert_eq!(Segment::parse(&outcome.bytes), Segment { to, ..segment.clone() });
    outcome.bytes[..6].try_into().unwrap()
}

#[test]
fn packets_to_a_backend_on_the_bridge_go_straight_there_once_its_mac_is_known() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            let veth = add_bridge(&mut programs);
            let backend = net.backends[1];
            programs.add(&round_robin(&net, protocol, &[(backend, 1)]));
            let first = opening(protocol, net.client, net.vip, 1);
            let to = sent_to(&mut programs, veth, &first, backend, Verdict::NewFlow);
            assert_eq!(to, GATEWAY_MAC, "by the host, which asks who has the address");
            learn(backend);
            let next = if protocol == TCP { Segment::tcp(net.client, net.vip, "A", 2) } else { first };
            let to = sent_to(&mut programs, veth, &next, backend, Verdict::Forwarded);
            assert_eq!(to, BACKEND_MAC);
            // A flow that opens now never meets the host.
            let other = opening(protocol, with_port(net.client, 40_001), net.vip, 1);
            let to = sent_to(&mut programs, veth, &other, backend, Verdict::NewFlow);
            assert_eq!(to, BACKEND_MAC);
            // What came back seems to come from the VIP all the same.
            let answer = next.answer(backend, "A");
            let outcome = programs.run("to_pod", &answer.bytes(), veth);
            assert_eq!(outcome.verdict, Verdict::Replied);
            assert_eq!(Segment::parse(&outcome.bytes), Segment { from: net.vip, ..answer });
        }
    }
}

#[test]
fn a_syn_that_is_sent_again_goes_through_the_host() {
    for net in nets() {
        let mut programs = Programs::load();
        let veth = add_bridge(&mut programs);
        let backend = net.backends[1];
        programs.add(&round_robin(&net, TCP, &[(backend, 1)]));
        learn(backend);
        let syn = opening(TCP, net.client, net.vip, 1);
        let to = sent_to(&mut programs, veth, &syn, backend, Verdict::NewFlow);
        assert_eq!(to, BACKEND_MAC);
        let to = sent_to(&mut programs, veth, &syn, backend, Verdict::Forwarded);
        assert_eq!(to, GATEWAY_MAC, "the backend may have got another MAC address");
        let ack = Segment::tcp(net.client, net.vip, "A", 2);
        let to = sent_to(&mut programs, veth, &ack, backend, Verdict::Forwarded);
        assert_eq!(to, BACKEND_MAC);
    }
}

#[test]
fn packets_to_a_backend_behind_a_gateway_go_through_the_host() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            let veth = add_bridge(&mut programs);
            let backend = net.backends[0];
            programs.add(&round_robin(&net, protocol, &[(backend, 1)]));
            let first = opening(protocol, net.client, net.vip, 1);
            for verdict in [Verdict::NewFlow, Verdict::Forwarded] {
                assert_eq!(sent_to(&mut programs, veth, &first, backend, verdict), GATEWAY_MAC);
            }
        }
    }
}
