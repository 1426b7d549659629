//! Packets with headers that most do not have: options, extension headers, fragments.

use crate::{
    Net, TCP, UDP, nets, opening,
    programs::Programs,
    round_robin,
    wire::{Segment, set_udp_checksum},
};
use mcs_proxy_ebpf::abi::Verdict;

pub(crate) fn programs(net: &Net, protocol: u8) -> Programs {
    let mut programs = Programs::load();
    programs.add(&round_robin(net, protocol, &[(net.backends[0], 1)]));
    programs
}

/// Puts bytes between the network header and the transport: IPv4 options, or an IPv6 extension header whose first
/// byte becomes the next header.
pub(crate) fn insert(bytes: &[u8], header: u8, between: &[u8]) -> Vec<u8> {
    let (mut bytes, v4) = (bytes.to_vec(), bytes[12] == 8);
    let at = if v4 { 34 } else { 54 };
    bytes.splice(at..at, between.iter().copied());
    let added = u16::try_from(between.len()).unwrap();
    let length = if v4 { 16 } else { 18 };
    let total = u16::from_be_bytes([bytes[length], bytes[length + 1]]) + added;
    bytes[length..length + 2].copy_from_slice(&total.to_be_bytes());
    if v4 {
        bytes[14] += u8::try_from(added / 4).unwrap();
        seal(&mut bytes);
    } else {
        bytes[54] = bytes[20];
        bytes[20] = header;
    }
    bytes
}

/// Writes the checksum of the IPv4 header.
pub(crate) fn seal(bytes: &mut [u8]) {
    let end = 14 + 4 * usize::from(bytes[14] & 15);
    bytes[24..26].fill(0);
    let mut sum: u32 =
        bytes[14..end].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn options_and_extension_headers_are_stepped_over() {
    for net in nets() {
        for protocol in [TCP, UDP] {
            let headers: Vec<(u8, Vec<u8>)> = if net.vip.is_ipv4() {
                vec![(0, vec![1, 1, 1, 0]), (0, vec![0x94, 4, 0, 0]), (0, vec![1; 40])]
            } else {
                let options = |units: u8| {
                    [vec![0, units, 1, 4 + 8 * units], vec![0; 4 + 8 * usize::from(units)]].concat()
                };
                vec![(0, options(0)), (60, options(2)), (43, vec![0; 8]), (44, vec![0, 0, 0, 0, 1, 2, 3, 4])]
            };
            for (number, header) in headers {
                let mut programs = programs(&net, protocol);
                let there = opening(protocol, net.client, net.vip, 1);
                let translated = Segment { to: net.backends[0], ..there.clone() };
                let outcome = programs.from_pod(&insert(&there.bytes(), number, &header));
                assert_eq!(outcome.verdict, Verdict::NewFlow);
                assert_eq!(outcome.bytes, insert(&translated.bytes(), number, &header), "{header:?}");
                let back = there.answer(net.backends[0], "SA");
                let translated = Segment { from: net.vip, ..back.clone() };
                let outcome = programs.to_pod(&insert(&back.bytes(), number, &header));
                assert_eq!(outcome.verdict, Verdict::Replied);
                assert_eq!(outcome.bytes, insert(&translated.bytes(), number, &header), "{header:?}");
            }
        }
    }
}

#[test]
fn routes_still_to_be_travelled_and_headers_without_end_pass() {
    for net in nets() {
        let mut programs = programs(&net, TCP);
        let plain = opening(TCP, net.client, net.vip, 1).bytes();
        let rows: Vec<(Vec<u8>, Verdict)> = if net.vip.is_ipv4() {
            vec![
                (insert(&plain, 0, &[131, 7, 4, 10, 0, 0, 1, 0]), Verdict::Unsupported),
                (insert(&plain, 0, &[7, 1, 0, 0]), Verdict::Malformed),
                (insert(&plain, 0, &[7, 9, 0, 0]), Verdict::Malformed),
            ]
        } else {
            vec![
                (insert(&plain, 43, &[0, 0, 0, 1, 0, 0, 0, 0]), Verdict::Unsupported),
                (insert(&plain, 60, &[0, 200, 0, 0, 0, 0, 0, 0]), Verdict::Unsupported),
                (
                    (0..9).fold(plain, |bytes, _| insert(&bytes, 60, &[0, 0, 1, 4, 0, 0, 0, 0])),
                    Verdict::Unsupported,
                ),
            ]
        };
        for (bytes, verdict) in rows {
            let outcome = programs.from_pod(&bytes);
            assert_eq!((outcome.verdict, &outcome.bytes), (verdict, &bytes));
        }
        assert_eq!(programs.pairs(), (0, 0));
    }
}

/// Both fragments of a datagram: the first 16 bytes of its transport, and the rest.
pub(crate) fn fragments(bytes: &[u8]) -> [Vec<u8>; 2] {
    if bytes[12] == 8 {
        let part = |place: [u8; 2], data: &[u8]| {
            let mut part = [&bytes[..34], data].concat();
            part[17] = u8::try_from(20 + data.len()).unwrap();
            part[18..20].copy_from_slice(&[7, 7]);
            part[20..22].copy_from_slice(&place);
            seal(&mut part);
            part
        };
        [part([0x20, 0], &bytes[34..50]), part([0, 2], &bytes[50..])]
    } else {
        let part = |place: u8, data: &[u8]| {
            let mut short = [&bytes[..54], data].concat();
            short[19] = u8::try_from(data.len()).unwrap();
            insert(&short, 44, &[0, 0, 0, place, 7, 7, 7, 7])
        };
        [part(1, &bytes[54..70]), part(16, &bytes[70..])]
    }
}

#[test]
fn later_fragments_follow_their_first_both_ways() {
    for net in nets() {
        let mut programs = programs(&net, UDP);
        let there = Segment::udp(net.client, net.vip);
        let back = there.answer(net.backends[0], "");
        let back = Segment { payload: b"a longer answer".to_vec(), ..back };
        let [first, later] = fragments(&there.bytes());
        let lone = programs.from_pod(&later);
        assert_eq!((lone.verdict, &lone.bytes), (Verdict::LoneFragment, &later));
        let wanted = fragments(&Segment { to: net.backends[0], ..there.clone() }.bytes());
        assert_eq!(programs.from_pod(&first).bytes, wanted[0]);
        let outcome = programs.from_pod(&later);
        assert_eq!((outcome.verdict, &outcome.bytes), (Verdict::Forwarded, &wanted[1]));
        let [first, later] = fragments(&back.bytes());
        let wanted = fragments(&Segment { from: net.vip, ..back }.bytes());
        assert_eq!(programs.to_pod(&first).bytes, wanted[0]);
        let outcome = programs.to_pod(&later);
        assert_eq!((outcome.verdict, &outcome.bytes), (Verdict::Replied, &wanted[1]));
    }
}

#[test]
fn a_datagram_shorter_than_its_header_says_passes() {
    for net in nets() {
        let mut programs = programs(&net, UDP);
        for length in [7_u8, 255] {
            let mut bytes = Segment::udp(net.client, net.vip).bytes();
            set_udp_checksum(&mut bytes, [1, 1]);
            let at = if net.vip.is_ipv4() { 39 } else { 59 };
            bytes[at] = length;
            let outcome = programs.from_pod(&bytes);
            assert_eq!((outcome.verdict, &outcome.bytes), (Verdict::Malformed, &bytes));
        }
    }
}
