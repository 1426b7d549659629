//! What each kind of packet becomes: the real programs, run by the kernel on packets written down here.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod bridge;
mod choice;
mod differential;
mod events;
mod hairpin;
mod icmp;
mod life;
mod mutated;
mod odd;
mod programs;
mod reject;
mod roster;
mod sctp;
mod stack;
mod turns;
mod wire;
mod wire_tuples;

use mcs_proxy_ebpf::abi::{Algorithm, BackendState, Direction, Element, Header, Liveness, Stage, Verdict};
use programs::{Frontend, POD, Programs};
use std::net::SocketAddr;
use wire::{Kind, Segment, set_udp_checksum, udp_checksum};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The addresses of the story, in both families.
#[derive(Clone, Copy, Debug)]
struct Net {
    client: SocketAddr,
    vip: SocketAddr,
    backends: [SocketAddr; 2],
    stranger: SocketAddr,
}

fn nets() -> [Net; 2] {
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    [
        Net {
            client: parse("10.12.0.9:40000"),
            vip: parse("10.13.181.116:80"),
            backends: [parse("10.10.0.6:8080"), parse("10.12.0.6:8080")],
            stranger: parse("192.0.2.7:80"),
        },
        Net {
            client: parse("[fd00:10:12::9]:40000"),
            vip: parse("[fd00:10:13::b574]:80"),
            backends: [parse("[fd00:10:10::6]:8080"), parse("[fd00:10:12::6]:8080")],
            stranger: parse("[2001:db8::7]:80"),
        },
    ]
}

/// Both families, both protocols; a frontend with both backends in round robin.
fn each_case(check: impl Fn(Net, u8, &mut Programs)) {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let mut programs = Programs::load();
            programs.add(&round_robin(&net, protocol, &[(net.backends[0], 1), (net.backends[1], 2)]));
            check(net, protocol, &mut programs);
        }
    }
}

fn round_robin<'a>(net: &Net, protocol: u8, slots: &'a [(SocketAddr, u32)]) -> Frontend<'a> {
    Frontend { vip: net.vip, protocol, algorithm: Algorithm::RoundRobin, affinity_seconds: 0, slots }
}

/// The first packet of a flow: a SYN, or a datagram.
fn opening(protocol: u8, from: SocketAddr, to: SocketAddr, sequence: u32) -> Segment {
    if protocol == TCP { Segment::tcp(from, to, "S", sequence) } else { Segment::udp(from, to) }
}

fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

#[track_caller]
fn assert_untouched(programs: &mut Programs, program: &str, bytes: &[u8], verdict: Verdict) {
    let outcome = programs.run(program, bytes, POD);
    assert_eq!(outcome.verdict, verdict);
    assert_eq!(outcome.bytes, bytes, "a packet that is not translated must not change by a byte");
    let (flows, replies) = programs.pairs();
    assert_eq!(flows, replies);
}

/// Runs a packet from the pod that must be translated, and only where it goes.
#[track_caller]
fn assert_goes_to(programs: &mut Programs, segment: &Segment, backend: SocketAddr, verdict: Verdict) {
    let outcome = programs.from_pod(&segment.bytes());
    assert_eq!(outcome.verdict, verdict);
    assert_eq!(Segment::parse(&outcome.bytes), Segment { to: backend, ..segment.clone() });
}

/// Runs a packet to the pod that must be translated, and only where it seems to come from.
#[track_caller]
fn assert_comes_from(programs: &mut Programs, segment: &Segment, vip: SocketAddr) {
    let outcome = programs.to_pod(&segment.bytes());
    assert_eq!(outcome.verdict, Verdict::Replied);
    assert_eq!(Segment::parse(&outcome.bytes), Segment { from: vip, ..segment.clone() });
}

#[test]
fn what_is_not_ours_passes_byte_identical() {
    each_case(|net, protocol, programs| {
        let out = opening(protocol, net.client, net.stranger, 1).bytes();
        assert_untouched(programs, "from_pod", &out, Verdict::NotOurs);
        let back = opening(protocol, net.stranger, net.client, 1).bytes();
        assert_untouched(programs, "to_pod", &back, Verdict::NotOurs);
        // A pod that talks to a backend directly: on the way out it is no VIP, on the way back no flow is known.
        let direct = opening(protocol, net.client, net.backends[0], 1);
        assert_untouched(programs, "from_pod", &direct.bytes(), Verdict::NotOurs);
        let answer = direct.answer(net.backends[0], "SA").bytes();
        assert_untouched(programs, "to_pod", &answer, Verdict::NoFlow);
    });
}

#[test]
fn a_new_flow_takes_turns_and_its_packets_and_replies_follow_it() {
    each_case(|net, protocol, programs| {
        for (round, port) in (40_000..40_029).enumerate() {
            let client = with_port(net.client, port);
            let backend = net.backends[round % 2];
            let first = opening(protocol, client, net.vip, 5);
            assert_goes_to(programs, &first, backend, Verdict::NewFlow);
            // A retransmit is the same flow and takes no turn.
            assert_goes_to(programs, &first, backend, Verdict::Forwarded);
            assert_comes_from(programs, &first.answer(backend, "SA"), net.vip);
            if protocol == TCP {
                let ack = Segment::tcp(client, net.vip, "A", 6);
                assert_goes_to(programs, &ack, backend, Verdict::Forwarded);
                assert_comes_from(programs, &ack.answer(backend, "A"), net.vip);
            }
        }
        assert_eq!(programs.pairs(), (29, 29));
        assert_eq!(programs.service_counters(1).flows, 29);
        let turns = [1, 2].map(|backend| programs.backend_counters(backend));
        assert_eq!(turns.map(|counters| counters.flows), [15, 14]);
        assert_eq!(turns.map(|counters| counters.first_replies), [15, 14]);
    });
}

#[test]
fn counters_count_from_the_ip_header_on() {
    each_case(|net, protocol, programs| {
        let first = opening(protocol, net.client, net.vip, 5);
        let (out, back) = (first.bytes(), first.answer(net.backends[0], "SA").bytes());
        programs.from_pod(&out);
        programs.from_pod(&out);
        programs.to_pod(&back);
        let length = |bytes: &[u8]| bytes.len() as u64 - 14;
        let counters = programs.service_counters(1);
        assert_eq!((counters.packets_in, counters.bytes_in), (2, 2 * length(&out)));
        assert_eq!((counters.packets_out, counters.bytes_out), (1, length(&back)));
        assert_eq!(programs.backend_counters(1).bytes, 2 * length(&out) + length(&back));
    });
}

#[test]
fn random_reaches_every_backend() {
    for net in nets() {
        let mut programs = Programs::load();
        let slots = [(net.backends[0], 1), (net.backends[1], 2)];
        programs.add(&Frontend { algorithm: Algorithm::Random, ..round_robin(&net, TCP, &slots) });
        for port in 1..=200 {
            programs.from_pod(&Segment::tcp(with_port(net.client, port), net.vip, "S", 1).bytes());
        }
        let flows = [1, 2].map(|backend| programs.backend_counters(backend).flows);
        assert_eq!(flows.iter().sum::<u32>(), 200);
        // One in 10^11 runs has fewer than 55 of 200 on one side.
        assert!(flows.iter().all(|count| *count > 55), "{flows:?}");
    }
}

#[test]
fn a_packet_of_a_connection_that_is_not_ours_passes() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1)]));
        for flags in ["A", "AF", "R", "SA"] {
            let packet = Segment::tcp(net.client, net.vip, flags, 9).bytes();
            assert_untouched(&mut programs, "from_pod", &packet, Verdict::UnknownConnection);
        }
        assert_eq!(programs.pairs(), (0, 0));
    }
}

#[test]
fn another_port_or_protocol_of_a_vip_passes() {
    each_case(|net, protocol, programs| {
        let port = opening(protocol, net.client, with_port(net.vip, 81), 1).bytes();
        assert_untouched(programs, "from_pod", &port, Verdict::NoService);
        let other = if protocol == TCP { UDP } else { TCP };
        let protocol = opening(other, net.client, net.vip, 1).bytes();
        assert_untouched(programs, "from_pod", &protocol, Verdict::NoService);
    });
}

#[test]
fn a_syn_with_another_sequence_number_is_a_new_connection() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1), (net.backends[1], 2)]));
        let first = Segment::tcp(net.client, net.vip, "S", 100);
        assert_goes_to(&mut programs, &first, net.backends[0], Verdict::NewFlow);
        let second = Segment::tcp(net.client, net.vip, "S", 200);
        assert_goes_to(&mut programs, &second, net.backends[1], Verdict::NewFlow);
        assert_eq!(programs.pairs(), (1, 1));
        let late = first.answer(net.backends[0], "SA").bytes();
        assert_untouched(&mut programs, "to_pod", &late, Verdict::NoFlow);
        assert_comes_from(&mut programs, &second.answer(net.backends[1], "SA"), net.vip);
    }
}

#[test]
fn a_reply_is_translated_only_on_the_interface_of_its_flow() {
    each_case(|net, protocol, programs| {
        let other = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        let first = opening(protocol, net.client, net.vip, 1);
        programs.from_pod(&first.bytes());
        let answer = first.answer(net.backends[0], "SA").bytes();
        let outcome = programs.run("to_pod", &answer, other);
        assert_eq!((outcome.verdict, outcome.bytes), (Verdict::OtherInterface, answer.clone()));
        // The same tuple from another interface is another pod's: it opens a flow of its own.
        let outcome = programs.run("from_pod", &first.bytes(), other);
        assert_eq!(outcome.verdict, Verdict::NewFlow);
        let outcome = programs.run("to_pod", &first.answer(net.backends[1], "SA").bytes(), other);
        assert_eq!(outcome.verdict, Verdict::Replied);
    });
}

#[test]
fn a_datagram_selects_anew_once_its_backend_is_gone_and_a_connection_does_not() {
    each_case(|net, protocol, programs| {
        let first = opening(protocol, net.client, net.vip, 1);
        assert_goes_to(programs, &first, net.backends[0], Verdict::NewFlow);
        programs.set_backend(1, BackendState::new(1, Liveness::Serving));
        assert_goes_to(programs, &first, net.backends[0], Verdict::Forwarded);
        for gone in [BackendState::new(1, Liveness::Gone), BackendState::new(2, Liveness::Live)] {
            let mut fresh = Programs::load();
            fresh.add(&round_robin(&net, protocol, &[(net.backends[0], 1), (net.backends[1], 2)]));
            assert_goes_to(&mut fresh, &first, net.backends[0], Verdict::NewFlow);
            fresh.set_backend(1, gone);
            if protocol == UDP {
                assert_goes_to(&mut fresh, &first, net.backends[1], Verdict::NewFlow);
                assert_eq!(fresh.pairs(), (1, 1));
            } else {
                assert_goes_to(&mut fresh, &first, net.backends[0], Verdict::Forwarded);
            }
        }
    });
}

#[test]
fn a_change_of_backends_moves_new_flows_only() {
    each_case(|net, protocol, programs| {
        let first = opening(protocol, net.client, net.vip, 1);
        assert_goes_to(programs, &first, net.backends[0], Verdict::NewFlow);
        let extent = programs.write_extent(1, &round_robin(&net, protocol, &[(net.backends[1], 2)]));
        programs.publish(1, extent);
        assert_goes_to(programs, &first, net.backends[0], Verdict::Forwarded);
        let second = opening(protocol, with_port(net.client, 40_001), net.vip, 1);
        assert_goes_to(programs, &second, net.backends[1], Verdict::NewFlow);
    });
}

#[test]
fn a_target_port_equal_to_the_service_port_leaves_the_port_alone() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let backend = with_port(net.backends[0], net.vip.port());
            let mut programs = Programs::load();
            programs.add(&round_robin(&net, protocol, &[(backend, 1)]));
            let first = opening(protocol, net.client, net.vip, 1);
            assert_goes_to(&mut programs, &first, backend, Verdict::NewFlow);
            assert_comes_from(&mut programs, &first.answer(backend, "SA"), net.vip);
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_zero_over_ipv4() {
    let net = nets()[0];
    let mut programs = Programs::load();
    programs.add(&round_robin(&net, UDP, &[(net.backends[0], 1)]));
    let mut bytes = Segment::udp(net.client, net.vip).bytes();
    set_udp_checksum(&mut bytes, [0, 0]);
    let outcome = programs.from_pod(&bytes);
    assert_eq!(outcome.verdict, Verdict::NewFlow);
    assert_eq!(udp_checksum(&outcome.bytes), [0, 0]);
    assert_eq!(Segment::parse(&outcome.bytes).to, net.backends[0]);
}

#[test]
fn a_udp_checksum_that_becomes_zero_is_written_as_all_ones() {
    for net in nets() {
        // A payload whose two bytes make the checksum of the *translated* datagram zero.
        let plain = Segment { payload: vec![0, 0], ..Segment::udp(net.client, net.backends[0]) };
        let payload = udp_checksum(&plain.bytes()).to_vec();
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, UDP, &[(net.backends[0], 1)]));
        let packet = Segment { payload, ..Segment::udp(net.client, net.vip) };
        let outcome = programs.from_pod(&packet.bytes());
        assert_eq!(outcome.verdict, Verdict::NewFlow);
        assert_eq!(udp_checksum(&outcome.bytes), [0xff, 0xff]);
        assert_eq!(Segment::parse(&outcome.bytes).to, net.backends[0]);
    }
}

#[test]
fn corrupt_maps_pass_packets_and_remember_nothing() {
    type Damage = fn(&mut Programs, Header);
    let damages: [(&str, Damage); 6] = [
        ("an extent out of range", |programs, _| programs.publish(1, 1 << 20)),
        ("no header", |programs, _| programs.set_element(1, Element::default())),
        ("an extent whose last slots are out of range", |programs, header| {
            // `Programs::load` makes 256 elements.
            let last = 255;
            programs.set_element(last, Element::header(&header));
            programs.publish(1, last);
        }),
        ("another frontend's extent", |programs, header| {
            programs.set_element(1, Element::header(&Header { frontend: 9, ..header }));
        }),
        ("slots that are none", |programs, _| {
            for index in [2, 3] {
                programs.set_element(index, Element::default());
            }
        }),
        ("a service id without a cursor", |programs, header| {
            programs.set_element(1, Element::header(&Header { service: 1 << 20, ..header }));
        }),
    ];
    for (what, damage) in damages {
        each_case(|net, protocol, programs| {
            let algorithm = Algorithm::RoundRobin;
            damage(
                programs,
                Header {
                    count: 2,
                    service: 1,
                    frontend: 1,
                    algorithm,
                    affinity_seconds: 0,
                    packets_only: false,
                    probe: false,
                },
            );
            let packet = opening(protocol, net.client, net.vip, 1).bytes();
            let outcome = programs.from_pod(&packet);
            assert_eq!((outcome.verdict, outcome.bytes), (Verdict::Corrupt, packet), "{what}");
            assert_eq!(programs.pairs(), (0, 0), "{what}");
        });
    }
}

#[test]
fn headers_that_are_not_plain_ip_pass() {
    let vlan_tag = |bytes: &mut Vec<u8>| drop(bytes.splice(12..12, [0x81, 0x00, 0x00, 0x05]));
    each_case(|net, protocol, programs| {
        let v4 = net.vip.is_ipv4();
        let whole = opening(protocol, net.client, net.vip, 1).bytes();
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            bytes
        };
        let rows: Vec<(&str, Vec<u8>, Verdict)> = vec![
            ("ARP", changed(&|bytes| bytes[12..14].copy_from_slice(&[0x08, 0x06])), Verdict::NotIp),
            ("VLAN", changed(&vlan_tag), Verdict::NotIp),
            // (BPF_PROG_TEST_RUN itself refuses half an IP header.)
            ("half a transport header", whole[..if v4 { 34 } else { 54 } + 6].to_vec(), Verdict::Malformed),
            ("ICMP", changed(&|bytes| bytes[if v4 { 23 } else { 20 }] = 1), Verdict::Unsupported),
        ];
        let v4_rows = vec![
            ("four words of header", changed(&|bytes| bytes[14] = 0x44), Verdict::Malformed),
            ("a later fragment without its first", changed(&|bytes| bytes[21] = 1), Verdict::LoneFragment),
            ("version 5", changed(&|bytes| bytes[14] = 0x55), Verdict::Malformed),
            ("a total length beyond the packet", changed(&|bytes| bytes[16] = 1), Verdict::Malformed),
            ("a total length without the transport", changed(&|bytes| bytes[17] = 27), Verdict::Malformed),
        ];
        let v6_rows = vec![
            ("AH", changed(&|bytes| bytes[20] = 51), Verdict::Unsupported),
            ("ESP", changed(&|bytes| bytes[20] = 50), Verdict::Unsupported),
            ("no next header", changed(&|bytes| bytes[20] = 59), Verdict::Unsupported),
            ("version 7", changed(&|bytes| bytes[14] = 0x70), Verdict::Malformed),
            ("a payload beyond the packet", changed(&|bytes| bytes[18] = 1), Verdict::Malformed),
            ("a payload without the transport", changed(&|bytes| bytes[19] = 7), Verdict::Malformed),
        ];
        for (what, bytes, verdict) in rows.into_iter().chain(if v4 { v4_rows } else { v6_rows }) {
            let outcome = programs.from_pod(&bytes);
            assert_eq!((outcome.verdict, &outcome.bytes), (verdict, &bytes), "{what}");
        }
        assert_eq!(programs.pairs(), (0, 0));
    });
}

#[test]
fn addresses_that_share_a_bit_with_ours_pass() {
    each_case(|net, protocol, programs| {
        programs.mark(Direction::FromPod, net.stranger);
        programs.mark(Direction::ToPod, net.stranger);
        let out = opening(protocol, net.client, net.stranger, 1).bytes();
        assert_untouched(programs, "from_pod", &out, Verdict::NoService);
        let back = opening(protocol, net.stranger, net.client, 1).bytes();
        assert_untouched(programs, "to_pod", &back, Verdict::NoFlow);
    });
}

#[test]
fn a_sequence_number_is_the_only_thing_that_makes_a_syn_new() {
    let net = nets()[0];
    let mut programs = Programs::load();
    programs.add(&round_robin(&net, TCP, &[(net.backends[0], 1), (net.backends[1], 2)]));
    let syn = Segment::tcp(net.client, net.vip, "S", 7);
    assert_goes_to(&mut programs, &syn, net.backends[0], Verdict::NewFlow);
    let retransmit = Segment { kind: Kind::Tcp { flags: "S", sequence: 7 }, ..syn.clone() };
    for _ in 0..3 {
        assert_goes_to(&mut programs, &retransmit, net.backends[0], Verdict::Forwarded);
    }
    assert_eq!(programs.service_counters(1).flows, 1);
}

/// A quarter of the kernel's limit: the verifier of another kernel, or the output of another compiler, may need
/// several times what today's do.
#[test]
fn every_program_is_verified_within_a_quarter_of_the_kernels_limit() {
    for mut programs in [Programs::load(), Programs::load_redirecting()] {
        for program in ["from_pod", "to_pod", "clock"].into_iter().chain(Stage::ALL.map(Stage::as_str)) {
            let verified = programs.instructions(program);
            println!("{program}: {verified} instructions");
            assert!(verified <= 250_000, "{program}: {verified} instructions");
        }
    }
}

#[test]
fn what_a_missing_program_would_go_on_with_passes_and_is_counted() {
    each_case(|net, protocol, programs| {
        let known = opening(protocol, with_port(net.client, 40_001), net.vip, 1);
        assert_goes_to(programs, &known, net.backends[0], Verdict::NewFlow);
        let call = opening(protocol, with_port(net.backends[1], 40_000), net.vip, 1);
        assert_eq!(programs.from_pod(&call.bytes()).verdict, Verdict::HairpinForwarded);
        for stage in Stage::ALL {
            programs.clear_stage(stage);
        }
        assert_goes_to(programs, &known, net.backends[0], Verdict::Forwarded);
        let first = opening(protocol, net.client, net.vip, 1).bytes();
        assert_untouched(programs, "from_pod", &first, Verdict::OpenMissing);
        assert_untouched(programs, "from_pod", &call.bytes(), Verdict::HairpinMissing);
    });
}
