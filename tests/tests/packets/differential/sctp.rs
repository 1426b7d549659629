//! SCTP packets with one chunk (RFC 9260), the checksum computed bit by bit.

use mcs_proxy_ebpf::{
    model::Segment,
    transition::{SCTP_ABORT, SCTP_INIT, SCTP_INIT_ACK, SCTP_SHUTDOWN_COMPLETE, TCP_ACK, TCP_RST, TCP_SYN},
};

/// Offset of the checksum.
pub(super) const CHECKSUM: usize = 8;
const COMMON_HEADER: u32 = 12;
const CHUNK_HEADER: u32 = 4;
/// Initiate tag, window, numbers of streams and of the first chunk of data.
const INIT_BODY: u32 = 16;

const DATA: u8 = 0;

/// The first chunk of a packet that means to its flow what these TCP flags do.
pub(super) fn chunk(flags: &str) -> u8 {
    match flags {
        "S" => SCTP_INIT,
        "SA" => SCTP_INIT_ACK,
        "R" => SCTP_ABORT,
        "AR" => SCTP_SHUTDOWN_COMPLETE,
        _ => DATA,
    }
}

/// How much stands before what the chunk carries.
pub(super) const fn header(chunk: u8) -> u32 {
    let body = if matches!(chunk, SCTP_INIT | SCTP_INIT_ACK) { INIT_BODY } else { 0 };
    COMMON_HEADER + CHUNK_HEADER + body
}

/// The packet, from its transport header on.
pub(super) fn bytes(segment: &Segment, payload: &[u8]) -> Vec<u8> {
    const ANSWER: u8 = TCP_SYN | TCP_ACK;
    let chunk = match segment.tcp_flags {
        TCP_SYN => SCTP_INIT,
        ANSWER => SCTP_INIT_ACK,
        TCP_RST => SCTP_ABORT,
        _ => DATA,
    };
    // Whoever sends an INIT knows no tag of the other's yet.
    let tag = if chunk == SCTP_INIT { 0_u32 } else { 5 };
    let mut packet = [segment.source_port, segment.destination_port]
        .iter()
        .flat_map(|port| port.get().to_be_bytes())
        .chain(tag.to_be_bytes())
        .collect::<Vec<_>>();
    packet.resize(header(chunk) as usize, 0);
    packet[COMMON_HEADER as usize] = chunk;
    if chunk == SCTP_INIT {
        let start = (COMMON_HEADER + CHUNK_HEADER) as usize;
        packet[start..start + 4].copy_from_slice(&segment.sequence.to_ne_bytes());
    }
    packet.extend(payload);
    let length = u16::try_from(packet.len() - COMMON_HEADER as usize).unwrap();
    packet[COMMON_HEADER as usize + 2..COMMON_HEADER as usize + 4].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&packet);
    packet[CHECKSUM..CHECKSUM + 4].copy_from_slice(&crc.to_le_bytes());
    packet
}

/// Appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
