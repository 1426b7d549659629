//! ICMP errors about translated packets, both ways, and echo requests.

use crate::{
    Net, assert_goes_to, assert_untouched, nets, opening,
    programs::{Outcome, Programs},
    round_robin,
    wire::{Segment, verify},
};
use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use mcs_proxy_ebpf::abi::{Direction, Verdict};
use std::net::{IpAddr, SocketAddr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// An ICMP message of either version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) kind: [u8; 2],
    pub(crate) rest: [u8; 4],
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut bytes = Vec::new();
        let [kind, code] = self.kind;
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet
                .ipv4(from.octets(), to.octets(), 64)
                .icmpv4_raw(kind, code, self.rest)
                .write(&mut bytes, &self.body)
                .unwrap(),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet
                .ipv6(from.octets(), to.octets(), 64)
                .icmpv6_raw(kind, code, self.rest)
                .write(&mut bytes, &self.body)
                .unwrap(),
            mixed => panic!("two families in one packet: {mixed:?}"),
        }
        bytes
    }

    /// Reads a message back, and fails unless its checksums are right.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let packet = SlicedPacket::from_ethernet(bytes).expect("a well-formed packet");
        let (from, to, offset): (IpAddr, IpAddr, usize) = match packet.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
                assert_eq!(usize::from(header.total_len), bytes.len() - 14, "IPv4 length");
                (header.source.into(), header.destination.into(), 34)
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                assert_eq!(usize::from(header.payload_length), bytes.len() - 54, "IPv6 length");
                (header.source.into(), header.destination.into(), 54)
            }
            other => panic!("not IP: {other:?}"),
        };
        match packet.transport.as_ref().expect("a transport header") {
            TransportSlice::Icmpv4(_) => {
                let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes[offset..]);
                assert_eq!(sum.ones_complement(), 0, "ICMP checksum");
            }
            TransportSlice::Icmpv6(_) => verify(bytes, from, to, IpNumber::IPV6_ICMP),
            other @ (TransportSlice::Tcp(_) | TransportSlice::Udp(_) | TransportSlice::Igmp(_)) => {
                panic!("not ICMP: {other:?}")
            }
        }
        let kind = [bytes[offset], bytes[offset + 1]];
        let rest = bytes[offset + 4..offset + 8].try_into().unwrap();
        Self { from, to, kind, rest, body: bytes[offset + 8..].to_vec() }
    }

    /// What it quotes in full, checksums verified.
    pub(crate) fn quoted(&self) -> Segment {
        let protocol = if self.from.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        Segment::parse(&[&[0; 12][..], &protocol, &self.body].concat())
    }
}

/// Type, code and the four bytes behind the checksum, of every kind of error.
pub(crate) fn errors(net: &Net) -> Vec<([u8; 2], [u8; 4])> {
    if net.vip.is_ipv4() {
        vec![
            ([3, 4], [0, 0, 0x05, 0x14]),
            ([3, 3], [0; 4]),
            ([3, 1], [0; 4]),
            ([11, 0], [0; 4]),
            ([12, 0], [8, 0, 0, 0]),
        ]
    } else {
        vec![
            ([2, 0], [0, 0, 0x05, 0x14]),
            ([1, 4], [0; 4]),
            ([1, 0], [0; 4]),
            ([3, 0], [0; 4]),
            ([4, 0], [0, 0, 0, 6]),
        ]
    }
}

pub(crate) fn router(net: &Net) -> IpAddr {
    if net.vip.is_ipv4() { [172, 18, 0, 9].into() } else { "fd18::9".parse().unwrap() }
}

fn each(test: impl Fn(Net, u8, &mut Programs)) {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            programs.add(&round_robin(&net, protocol, &[(net.backends[0], 1)]));
            test(net, protocol, &mut programs);
        }
    }
}

pub(crate) fn ip(bytes: &[u8]) -> Vec<u8> {
    bytes[14..].to_vec()
}

/// Opens a flow and returns what was sent, as the pod sent it and as it went to the backend.
fn open(net: &Net, protocol: u8, programs: &mut Programs) -> (Segment, Vec<u8>) {
    let first = opening(protocol, net.client, net.vip, 5);
    let Outcome { verdict, bytes } = programs.from_pod(&first.bytes());
    assert_eq!(verdict, Verdict::NewFlow);
    (first, bytes)
}

#[test]
fn an_error_about_a_translated_packet_reaches_the_pod_as_one_about_its_own() {
    each(|net, protocol, programs| {
        let (first, sent) = open(&net, protocol, programs);
        for (kind, rest) in errors(&net) {
            // A router speaks for itself, and the backend for the VIP.
            for (from, seen) in [(router(&net), router(&net)), (net.backends[0].ip(), net.vip.ip())] {
                let error = Message { from, to: net.client.ip(), kind, rest, body: ip(&sent) };
                let outcome = programs.to_pod(&error.bytes());
                assert_eq!(outcome.verdict, Verdict::IcmpTranslated, "{error:?}");
                let got = Message::parse(&outcome.bytes);
                assert_eq!(got.quoted(), first);
                assert_eq!(got, Message { from: seen, body: ip(&first.bytes()), ..error });
            }
        }
    });
}

#[test]
fn an_error_of_the_pod_about_an_answer_reaches_the_backend_as_one_about_its_own() {
    each(|net, protocol, programs| {
        let (first, _) = open(&net, protocol, programs);
        let answer = first.answer(net.backends[0], "SA");
        let seen = programs.to_pod(&answer.bytes());
        assert_eq!(seen.verdict, Verdict::Replied);
        for (kind, rest) in errors(&net) {
            let error =
                Message { from: net.client.ip(), to: net.vip.ip(), kind, rest, body: ip(&seen.bytes) };
            let outcome = programs.from_pod(&error.bytes());
            assert_eq!(outcome.verdict, Verdict::IcmpTranslated, "{error:?}");
            let got = Message::parse(&outcome.bytes);
            assert_eq!(got.quoted(), answer);
            assert_eq!(got, Message { to: net.backends[0].ip(), body: ip(&answer.bytes()), ..error });
        }
    });
}

#[test]
fn a_quote_of_eight_bytes_is_enough_and_fewer_are_not() {
    each(|net, protocol, programs| {
        let (first, sent) = open(&net, protocol, programs);
        let (kind, rest) = errors(&net)[0];
        let header = if net.vip.is_ipv4() { 20 } else { 40 };
        let error = |length: usize| Message {
            from: router(&net),
            to: net.client.ip(),
            kind,
            rest,
            body: ip(&sent)[..header + length].to_vec(),
        };
        // With TCP's checksum in the quote, half of it, and none.
        for length in [8, 17, 18, 20] {
            if usize::from(length > 8) * length > sent.len() - 14 - header {
                continue;
            }
            let outcome = programs.to_pod(&error(length).bytes());
            assert_eq!(outcome.verdict, Verdict::IcmpTranslated);
            let expected = ip(&first.bytes())[..header + length].to_vec();
            let got = Message::parse(&outcome.bytes);
            if length == 17 && protocol == TCP {
                assert_eq!(got.body[..header + 16], expected[..header + 16]);
            } else {
                assert_eq!(got.body, expected);
            }
        }
        assert_untouched(programs, "to_pod", &error(7).bytes(), Verdict::Unsupported);
    });
}

#[test]
fn a_datagram_without_a_checksum_is_quoted_without() {
    let net = nets()[0];
    let mut programs = Programs::load();
    programs.add(&round_robin(&net, UDP, &[(net.backends[0], 1)]));
    let (first, mut sent) = open(&net, UDP, &mut programs);
    crate::wire::set_udp_checksum(&mut sent, [0, 0]);
    let (kind, rest) = errors(&net)[1];
    let error = Message { from: router(&net), to: net.client.ip(), kind, rest, body: ip(&sent) };
    let got = Message::parse(&programs.to_pod(&error.bytes()).bytes);
    assert_eq!(got.body[26..28], [0, 0]);
    assert_eq!(got.quoted(), first);
}

#[test]
fn errors_that_are_not_about_our_flows_pass() {
    each(|net, protocol, programs| {
        let (first, sent) = open(&net, protocol, programs);
        let (kind, rest) = errors(&net)[0];
        let ours = Message { from: router(&net), to: net.client.ip(), kind, rest, body: ip(&sent) };

        let direct = opening(protocol, net.client, net.stranger, 1).bytes();
        let about = |body| Message { body, ..ours.clone() }.bytes();
        assert_untouched(programs, "to_pod", &about(ip(&direct)), Verdict::NotOurs);
        programs.mark(Direction::ToPod, net.stranger);
        assert_untouched(programs, "to_pod", &about(ip(&direct)), Verdict::NoFlow);
        // To another pod than the one that sent what is quoted.
        let other = Message { to: net.stranger.ip(), ..ours.clone() }.bytes();
        assert_untouched(programs, "to_pod", &other, Verdict::NoFlow);
        let elsewhere = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        let outcome = programs.run("to_pod", &ours.bytes(), elsewhere);
        assert_eq!((outcome.verdict, outcome.bytes), (Verdict::OtherInterface, ours.bytes()));
        // An echo reply is no error.
        let kind = if net.vip.is_ipv4() { [0, 0] } else { [129, 0] };
        let message = Message { kind, ..ours.clone() }.bytes();
        assert_untouched(programs, "to_pod", &message, Verdict::NotOurs);
        // From the pod, about something that the VIP never sent.
        let odd = Message { from: net.client.ip(), to: net.vip.ip(), ..ours.clone() };
        assert_untouched(programs, "from_pod", &odd.bytes(), Verdict::NoFlow);
        let reply = first.answer(SocketAddr::new(net.vip.ip(), 9), "SA").bytes();
        let odd = Message { body: ip(&reply), ..odd };
        assert_untouched(programs, "from_pod", &odd.bytes(), Verdict::NoFlow);
        assert_goes_to(programs, &first, net.backends[0], Verdict::Forwarded);
    });
}

#[test]
fn an_error_does_not_count_as_an_answer() {
    each(|net, protocol, programs| {
        let (_, sent) = open(&net, protocol, programs);
        let (kind, rest) = errors(&net)[0];
        let error = Message { from: router(&net), to: net.client.ip(), kind, rest, body: ip(&sent) };
        programs.to_pod(&error.bytes());
        assert_eq!(programs.backend_counters(1).first_replies, 0);
    });
}

#[test]
fn an_echo_request_to_a_vip_is_answered_and_to_another_address_passes() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[]));
        programs.mark(Direction::FromPod, net.stranger);
        let (request, reply) = if net.vip.is_ipv4() { (8, 0) } else { (128, 129) };
        for length in [0, 1, 56, 1400] {
            let ping = Message {
                from: net.client.ip(),
                to: net.vip.ip(),
                kind: [request, 0],
                rest: [0x12, 0x34, 0, 1],
                body: (0..length).map(|index: u32| index as u8).collect(),
            };
            let outcome = programs.from_pod(&ping.bytes());
            assert_eq!(outcome.verdict, Verdict::EchoReplied);
            let expected = Message { from: ping.to, to: ping.from, kind: [reply, 0], ..ping.clone() };
            assert_eq!(Message::parse(&outcome.bytes), expected);
            assert_eq!(outcome.bytes[..12], [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat());
            let other = Message { to: net.stranger.ip(), ..ping };
            assert_untouched(&mut programs, "from_pod", &other.bytes(), Verdict::NoService);
        }
    }
}
