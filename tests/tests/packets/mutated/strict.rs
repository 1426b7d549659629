//! A parser that knows nothing of the programs and forgives nothing, and what it makes of a packet before and after.

use crate::sctp::{SCTP, crc32c};
use mcs_proxy_ebpf::abi::Verdict;

const ETHERNET: usize = 14;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;

/// Where what is in a sound packet.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    v4: bool,
    transport: usize,
    protocol: u8,
    end: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

/// `Ok`: whether it was translated. `Err`: what is wrong.
pub(super) fn judge(program: &str, before: &[u8], verdict: Verdict, after: &[u8]) -> Result<bool, String> {
    match verdict {
        Verdict::NewFlow | Verdict::Forwarded | Verdict::Replied => {
            translated(program == "from_pod", before, after).map(|()| true)
        }
        // Both ends change, or the quote does: what exactly is for the tables of such packets.
        Verdict::HairpinForwarded | Verdict::HairpinReplied | Verdict::IcmpTranslated => {
            let layout = parse(after)?;
            if before.len() != after.len() || parse(before)? != layout {
                return Err("another packet".into());
            }
            same_checksums(before, after, &layout).map(|()| true)
        }
        Verdict::Rejected | Verdict::EchoReplied | Verdict::Ended => {
            let layout = parse(after)?;
            if after.len() > before.len() {
                return Err("an answer larger than what came in".into());
            }
            // An echo's checksum is as right as the request's; that of an answer of ours is always right.
            let right = sum_of_transport(after, &layout) == Some(true) || verdict == Verdict::EchoReplied;
            if right { Ok(false) } else { Err("an answer with a wrong checksum".into()) }
        }
        Verdict::RewriteFailed | Verdict::Corrupt => {
            Err("sound maps, and no packet may fail half-way".into())
        }
        Verdict::NotOurs
        | Verdict::NotIp
        | Verdict::Malformed
        | Verdict::Unsupported
        | Verdict::NoService
        | Verdict::UnknownConnection
        | Verdict::NoBackend
        | Verdict::TupleTaken
        | Verdict::FlowsFull
        | Verdict::NoFlow
        | Verdict::OtherInterface
        | Verdict::NotPromoted
        | Verdict::RejectLimited
        | Verdict::HostRedirect
        | Verdict::DirectTaken
        | Verdict::OpenMissing
        | Verdict::HairpinMissing
        | Verdict::Connected
        | Verdict::ConnectRefused
        | Verdict::LoneFragment
        | Verdict::OddMissing
        | Verdict::PeerMissing
        | Verdict::Redirected
        | Verdict::Orphaned => {
            if before == after {
                Ok(false)
            } else {
                Err("not translated, and changed".into())
            }
        }
    }
}

fn translated(out: bool, before: &[u8], after: &[u8]) -> Result<(), String> {
    let (was, is) = (parse(before)?, parse(after)?);
    if was != is || before.len() != after.len() {
        return Err(format!("{was:?} became {is:?}"));
    }
    let address = match (is.v4, out) {
        (true, true) => 30..34,
        (true, false) => 26..30,
        (false, true) => 38..54,
        (false, false) => 22..38,
    };
    let checksum = match is.protocol {
        TCP => is.transport + 16..is.transport + 18,
        UDP => is.transport + 6..is.transport + 8,
        _ => is.transport + 8..is.transport + 12,
    };
    let has_ports = is.part != Part::Later;
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        let may = address.contains(&at)
            || (is.v4 && (24..26).contains(&at))
            || (has_ports && ((is.transport..is.transport + 4).contains(&at) || checksum.contains(&at)));
        if old != new && !may {
            return Err(format!("byte {at} changed"));
        }
    }
    same_checksums(before, after, &is)
}

/// A checksum that was right is right, and one that was wrong is still wrong: a broken packet must not become a sound one.
fn same_checksums(before: &[u8], after: &[u8], layout: &Layout) -> Result<(), String> {
    let header = |bytes: &[u8]| {
        !layout.v4 || sum(&bytes[ETHERNET..ETHERNET + 4 * usize::from(bytes[14] & 15)], 0) == 0xffff
    };
    if header(before) != header(after) {
        return Err("the IPv4 checksum".into());
    }
    if layout.part == Part::Whole && sum_of_transport(before, layout) != sum_of_transport(after, layout) {
        return Err("the transport's checksum".into());
    }
    Ok(())
}

/// Whether the transport's checksum is right; `None` if there is none.
fn sum_of_transport(bytes: &[u8], layout: &Layout) -> Option<bool> {
    let data = &bytes[layout.transport..layout.end];
    match layout.protocol {
        SCTP => {
            let stored = &data[8..12];
            let zeroed = [&data[..8], &[0; 4], &data[12..]].concat();
            (stored != [0; 4]).then(|| crc32c(&zeroed).to_le_bytes() == stored)
        }
        UDP if data[6..8] == [0, 0] => None,
        ICMP => Some(sum(data, 0) == 0xffff),
        protocol => {
            // A UDP datagram ends where its own header says (RFC 768), which may be before the packet does.
            let data = if protocol == UDP { &data[..usize::from(word(data, 4))] } else { data };
            let addresses = if layout.v4 { &bytes[26..34] } else { &bytes[22..54] };
            let pseudo = sum(addresses, u32::from(protocol) + data.len() as u32);
            Some(sum(data, pseudo) == 0xffff)
        }
    }
}

/// The ones' complement sum (RFC 1071).
fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut sum = bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn parse(bytes: &[u8]) -> Result<Layout, String> {
    let layout = match word(bytes, 12) {
        0x0800 => parse_v4(bytes)?,
        0x86dd => parse_v6(bytes)?,
        other => return Err(format!("EtherType {other:04x}")),
    };
    if layout.end > bytes.len() || layout.transport > layout.end {
        return Err(format!("{layout:?} of {} bytes", bytes.len()));
    }
    if layout.part == Part::Later {
        return Ok(layout);
    }
    let data = &bytes[layout.transport..layout.end];
    let sound = match layout.protocol {
        TCP => data.len() >= 20 && (20..=data.len()).contains(&(usize::from(data[12] >> 4) * 4)),
        UDP => {
            let longest = if layout.part == Part::First { usize::from(u16::MAX) } else { data.len() };
            data.len() >= 8 && (8..=longest).contains(&usize::from(word(data, 4)))
        }
        SCTP => data.len() >= 16,
        ICMP | ICMP_V6 => data.len() >= 8,
        other => return Err(format!("protocol {other}")),
    };
    if sound { Ok(layout) } else { Err(format!("the transport header of {layout:?}")) }
}

fn parse_v4(bytes: &[u8]) -> Result<Layout, String> {
    let header = 4 * usize::from(bytes[14] & 15);
    if bytes[14] >> 4 != 4 || header < 20 {
        return Err("no IPv4 header".into());
    }
    let place = word(bytes, 20);
    let part = match (place & 0x1fff, place & 0x2000) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    };
    let end = ETHERNET + usize::from(word(bytes, 16));
    Ok(Layout { v4: true, transport: ETHERNET + header, protocol: bytes[23], end, part })
}

fn parse_v6(bytes: &[u8]) -> Result<Layout, String> {
    if bytes[14] >> 4 != 6 {
        return Err("no IPv6 header".into());
    }
    let end = ETHERNET + 40 + usize::from(word(bytes, 18));
    let (mut at, mut next, mut part) = (54, bytes[20], Part::Whole);
    while matches!(next, 0 | 43 | 44 | 60) {
        if part == Part::Later {
            break;
        }
        let Some(header) = bytes.get(at..at + 8) else { return Err("an extension header cut short".into()) };
        let length = if next == 44 { 8 } else { 8 + 8 * usize::from(header[1]) };
        if next == 44 {
            let place = word(header, 2);
            part = match (place & 0xfff8, place & 1) {
                (0, 0) => part,
                (0, _) => Part::First,
                _ => Part::Later,
            };
        }
        (at, next) = (at + length, header[0]);
    }
    Ok(Layout { v4: false, transport: at, protocol: next, end, part })
}
