//! SCTP: an association from its INIT to its end, errors about it, and its checksum.

use crate::{
    Net,
    icmp::{Message, errors, router},
    nets,
    odd::{insert, programs, seal},
    programs::{Place, Programs},
    round_robin,
    wire::Segment,
    with_port,
};
use mcs_proxy_ebpf::abi::Verdict;
use std::net::SocketAddr;

pub(crate) const SCTP: u8 = 132;

/// Types of chunks (RFC 9260, section 3.2).
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;
const COOKIE_ECHO: u8 = 10;

/// A packet with one chunk of 20 bytes; `tag` is the verification tag.
pub(crate) fn sctp(from: SocketAddr, to: SocketAddr, chunk: u8, tag: u32) -> Vec<u8> {
    initiating(from, to, chunk, tag, 9)
}

/// The same with the first word of the chunk's value: of an INIT, the tag that it proposes.
fn initiating(from: SocketAddr, to: SocketAddr, chunk: u8, tag: u32, proposed: u32) -> Vec<u8> {
    let mut bytes = Segment { payload: vec![0; 24], ..Segment::udp(from, to) }.bytes();
    let at = if from.is_ipv4() { 34 } else { 54 };
    bytes[if from.is_ipv4() { 23 } else { 20 }] = SCTP;
    bytes[at + 4..at + 8].copy_from_slice(&tag.to_be_bytes());
    bytes[at + 8..].fill(0);
    bytes[at + 12] = chunk;
    bytes[at + 15] = 20;
    bytes[at + 16..at + 20].copy_from_slice(&proposed.to_be_bytes());
    if from.is_ipv4() {
        seal(&mut bytes);
    }
    let crc = crc32c(&bytes[at..]);
    bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Bit by bit (RFC 9260, appendix A).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// INIT, INIT ACK, COOKIE ECHO.
fn associate(programs: &mut Programs, net: &Net) {
    let (client, vip, backend) = (net.client, net.vip, net.backends[0]);
    assert_eq!(programs.from_pod(&sctp(client, vip, INIT, 0)).verdict, Verdict::NewFlow);
    assert_eq!(programs.to_pod(&sctp(backend, client, INIT_ACK, 9)).verdict, Verdict::Replied);
    assert_eq!(programs.from_pod(&sctp(client, vip, COOKIE_ECHO, 5)).verdict, Verdict::Forwarded);
}

fn established(programs: &Programs) -> usize {
    programs.flows_in(Place::Established).0.len()
}

#[test]
fn sctp_is_translated_from_its_init_on() {
    for net in nets() {
        let (client, vip, backend) = (net.client, net.vip, net.backends[0]);
        let mut programs = programs(&net, SCTP);
        let data = sctp(client, vip, DATA, 5);
        let outcome = programs.from_pod(&data);
        assert_eq!((outcome.verdict, &outcome.bytes), (Verdict::UnknownConnection, &data));
        for (out, chunk, tag, verdict, flows) in [
            (true, INIT, 0, Verdict::NewFlow, 0),
            (true, INIT, 0, Verdict::Forwarded, 0),
            (false, INIT_ACK, 9, Verdict::Replied, 0),
            (true, COOKIE_ECHO, 5, Verdict::Forwarded, 1),
            (false, DATA, 9, Verdict::Replied, 1),
            (true, DATA, 5, Verdict::Forwarded, 1),
        ] {
            let (outcome, wanted) = if out {
                (programs.from_pod(&sctp(client, vip, chunk, tag)), sctp(client, backend, chunk, tag))
            } else {
                (programs.to_pod(&sctp(backend, client, chunk, tag)), sctp(vip, client, chunk, tag))
            };
            assert_eq!((outcome.verdict, outcome.bytes), (verdict, wanted), "chunk {chunk}");
            assert_eq!(established(&programs), flows, "chunk {chunk}");
        }
    }
}

#[test]
fn an_abort_or_a_completed_shutdown_ends_an_association_from_either_side() {
    for net in nets() {
        for chunk in [ABORT, SHUTDOWN_COMPLETE] {
            for by_client in [true, false] {
                let mut programs = programs(&net, SCTP);
                associate(&mut programs, &net);
                assert_eq!(established(&programs), 1);
                if by_client {
                    programs.from_pod(&sctp(net.client, net.vip, chunk, 5));
                } else {
                    programs.to_pod(&sctp(net.backends[0], net.client, chunk, 9));
                }
                assert!(programs.flow_state().is_closed());
                assert_eq!(established(&programs), 0);
                // What is late still finds its way, and promotes nothing.
                let late = programs.from_pod(&sctp(net.client, net.vip, DATA, 5));
                assert_eq!((late.verdict, established(&programs)), (Verdict::Forwarded, 0));
            }
        }
    }
}

#[test]
fn an_init_with_another_tag_is_a_new_association() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, SCTP, &[(net.backends[0], 1), (net.backends[1], 2)]));
        associate(&mut programs, &net);
        let again = programs.from_pod(&initiating(net.client, net.vip, INIT, 0, 10));
        let wanted = initiating(net.client, net.backends[1], INIT, 0, 10);
        assert_eq!((again.verdict, again.bytes), (Verdict::NewFlow, wanted));
        assert_eq!((programs.pairs(), established(&programs)), ((1, 1), 0));
    }
}

#[test]
fn an_sctp_port_that_stays_the_same_leaves_the_checksum_alone() {
    for net in nets() {
        let backend = with_port(net.backends[0], net.vip.port());
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, SCTP, &[(backend, 1)]));
        let outcome = programs.from_pod(&sctp(net.client, net.vip, INIT, 0));
        assert_eq!(outcome.bytes, sctp(net.client, backend, INIT, 0));
    }
}

#[test]
fn an_sctp_checksum_of_zero_stays_zero() {
    for net in nets() {
        let mut programs = programs(&net, SCTP);
        let at = if net.vip.is_ipv4() { 42 } else { 62 };
        let mut bytes = sctp(net.client, net.vip, INIT, 0);
        bytes[at..at + 4].fill(0);
        let outcome = programs.from_pod(&bytes);
        assert_eq!((outcome.verdict, &outcome.bytes[at..at + 4]), (Verdict::NewFlow, &[0; 4][..]));
    }
}

#[test]
fn sctp_behind_options_and_extension_headers_is_translated() {
    for net in nets() {
        let (number, header) =
            if net.vip.is_ipv4() { (0, vec![0x94, 4, 0, 0]) } else { (60, vec![0, 0, 1, 4, 0, 0, 0, 0]) };
        let mut programs = programs(&net, SCTP);
        let outcome = programs.from_pod(&insert(&sctp(net.client, net.vip, INIT, 0), number, &header));
        let wanted = insert(&sctp(net.client, net.backends[0], INIT, 0), number, &header);
        assert_eq!((outcome.verdict, outcome.bytes), (Verdict::NewFlow, wanted));
    }
}

#[test]
fn malformed_sctp_passes() {
    for net in nets() {
        let mut programs = programs(&net, SCTP);
        let whole = sctp(net.client, net.vip, INIT, 0);
        let at = if net.vip.is_ipv4() { 34 } else { 54 };
        // An INIT is for whoever has no tag yet (RFC 9260, section 8.5.1).
        let tagged = sctp(net.client, net.vip, INIT, 7);
        for bytes in [tagged, whole[..at + 11].to_vec(), whole[..at + 19].to_vec()] {
            let outcome = programs.from_pod(&bytes);
            assert_eq!((outcome.verdict, &outcome.bytes), (Verdict::Malformed, &bytes));
        }
    }
}

#[test]
fn an_init_to_a_service_without_backends_is_unreachable_and_quoted() {
    for net in nets() {
        let mut programs = Programs::load();
        programs.add(&round_robin(&net, SCTP, &[]));
        let header = if net.vip.is_ipv4() { 20 } else { 40 };
        // Room for the answer, which is no larger than what it answers.
        let mut init = sctp(net.client, net.vip, INIT, 0);
        init.resize(14 + header + 60, 0);
        let length = u16::try_from(init.len() - 14).unwrap();
        if net.vip.is_ipv4() {
            init[16..18].copy_from_slice(&length.to_be_bytes());
            seal(&mut init);
        } else {
            init[18..20].copy_from_slice(&(length - 40).to_be_bytes());
        }
        let outcome = programs.from_pod(&init);
        assert_eq!(outcome.verdict, Verdict::Rejected);
        let expected = Message {
            from: net.vip.ip(),
            to: net.client.ip(),
            kind: if net.vip.is_ipv4() { [3, 3] } else { [1, 4] },
            rest: [0; 4],
            body: init[14..14 + header + 8].to_vec(),
        };
        assert_eq!(Message::parse(&outcome.bytes), expected);
        let data = sctp(net.client, net.vip, DATA, 5);
        assert_eq!(programs.from_pod(&data).verdict, Verdict::UnknownConnection);
    }
}

/// Of the CRC nobody expects that it fits a quote, which is cut as a rule: it stays as it is.
#[test]
fn an_error_about_an_sctp_packet_is_translated_both_ways() {
    for net in nets() {
        let mut programs = programs(&net, SCTP);
        let [client, vip, backend] = [net.client, net.vip, net.backends[0]];
        let at = if vip.is_ipv4() { 34 } else { 54 };
        // As it was quoted, but for addresses and ports.
        let quote = |from, to, crc_of: &[u8]| {
            let mut bytes = sctp(from, to, INIT, 0);
            bytes[at + 8..at + 12].copy_from_slice(&crc_of[at + 8..at + 12]);
            bytes[14..].to_vec()
        };
        let sent = programs.from_pod(&sctp(client, vip, INIT, 0)).bytes;
        for (kind, rest) in errors(&net) {
            let error =
                Message { from: router(&net), to: client.ip(), kind, rest, body: sent[14..].to_vec() };
            let outcome = programs.to_pod(&error.bytes());
            assert_eq!(outcome.verdict, Verdict::IcmpTranslated);
            let expected = Message { body: quote(client, vip, &sent), ..error };
            assert_eq!(Message::parse(&outcome.bytes), expected);

            let seen = sctp(vip, client, INIT, 0);
            let error = Message { from: client.ip(), to: vip.ip(), kind, rest, body: seen[14..].to_vec() };
            let outcome = programs.from_pod(&error.bytes());
            assert_eq!(outcome.verdict, Verdict::IcmpTranslated);
            let expected = Message { to: backend.ip(), body: quote(backend, client, &seen), ..error };
            assert_eq!(Message::parse(&outcome.bytes), expected);
        }
    }
}
