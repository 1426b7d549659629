//! What a packet says about the flow that it belongs to: the rules of a flow's life, for the programs and for
//! their [model](crate::model) alike. Nothing is looked up or stored here.

use crate::abi::{Flow, FlowState, Protocol, Reply, Tuple};

/// TCP's flags, as they stand in byte 13 of its header (RFC 9293, section 3.1).
pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// First chunks of SCTP packets (RFC 9260, section 3.2) that say something about the life of an association.
pub const SCTP_INIT: u8 = 1;
pub const SCTP_INIT_ACK: u8 = 2;
pub const SCTP_ABORT: u8 = 6;
pub const SCTP_SHUTDOWN_COMPLETE: u8 = 14;

/// The TCP flags that mean to a flow what a packet's first chunk does. COOKIE ECHO, which confirms the answer, is the
/// third packet as the ACK is; whatever a client sends after it confirms the same.
#[inline(always)]
pub const fn flags_of_chunk(chunk: u8) -> u8 {
    match chunk {
        SCTP_INIT => TCP_SYN,
        SCTP_INIT_ACK => TCP_SYN | TCP_ACK,
        SCTP_ABORT | SCTP_SHUTDOWN_COMPLETE => TCP_RST,
        _ => TCP_ACK,
    }
}

/// A UDP flow that had traffic both ways is confirmed after this many seconds, as netfilter makes it a stream
/// (`nf_conntrack_udp_packet`: "assured" after 2 s).
const UDP_CONFIRMED_SECONDS: u32 = 2;

/// Whether a packet with these flags opens a connection. SCTP's chunks are told as the flags that mean the same; a
/// datagram opens a flow, and no connection.
#[inline(always)]
pub const fn is_syn(protocol: Protocol, tcp_flags: u8) -> bool {
    !matches!(protocol, Protocol::Udp) && tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST) == TCP_SYN
}

/// Whether a SYN with this sequence number opens another connection than the one that began with `isn`, whatever that
/// one's state. With the same number it is a retransmit and must not be counted twice.
#[inline(always)]
pub const fn opens_another(is_syn: bool, sequence: u32, isn: u32) -> bool {
    is_syn && isn != sequence
}

/// Whether the packet, from the client, confirms what the backend has answered. `opened` is a UDP flow's date; it and
/// `now` are ticks.
#[inline(always)]
pub const fn is_confirmation(
    protocol: Protocol,
    tcp_flags: u8,
    state: FlowState,
    opened: u32,
    now: u32,
    ticks_per_second: u32,
) -> bool {
    if !state.has(FlowState::ANSWERED) || state.is_closed() {
        return false;
    }
    match protocol {
        Protocol::Tcp | Protocol::Sctp => tcp_flags & (TCP_SYN | TCP_ACK) == TCP_ACK,
        Protocol::Udp => now.wrapping_sub(opened) >= UDP_CONFIRMED_SECONDS * ticks_per_second,
    }
}

/// What the packet says about the end of its connection; `fin` is the bit of the side that sent it.
#[inline(always)]
pub const fn end_of(tcp_flags: u8, fin: FlowState) -> FlowState {
    if tcp_flags & TCP_RST != 0 {
        FlowState::RESET
    } else if tcp_flags & TCP_FIN != 0 {
        fin
    } else {
        FlowState::NEW
    }
}

/// The key of the reply that belongs to a flow. `key` is the flow's own.
#[inline(always)]
pub const fn reply_key_of(key: &Tuple, flow: &Flow) -> Tuple {
    Tuple::new(key.client, flow.wire_port, flow.backend, flow.backend_port, key.protocol)
}

/// The reply that belongs to a flow. `key` is the flow's own.
#[inline(always)]
pub const fn reply_of(key: &Tuple, flow: &Flow) -> Reply {
    Reply {
        vip: flow.vip,
        backend: flow.backend,
        vip_port: key.peer_port,
        wire_port: flow.wire_port,
        client_port: flow.client_port,
        protocol: flow.protocol,
        state: flow.state.only(FlowState::ANSWERED.with(FlowState::BESIDE)),
        backend_id: flow.backend_id,
        service: flow.service,
        interface: flow.interface,
        last_seen: flow.last_seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_syn_alone_opens_a_connection() {
        for flags in 0..=u8::MAX {
            // Those that have nothing to do with the life of a connection: PSH, URG, ECE, CWR.
            let expected = flags & 0b0001_0111 == TCP_SYN;
            assert_eq!(is_syn(Protocol::Tcp, flags), expected, "{flags:08b}");
            assert_eq!(is_syn(Protocol::Sctp, flags), expected, "{flags:08b}");
            assert!(!is_syn(Protocol::Udp, flags));
        }
    }

    #[test]
    fn a_reset_outweighs_a_fin() {
        assert_eq!(end_of(TCP_RST | TCP_FIN, FlowState::CLIENT_FIN), FlowState::RESET);
        assert_eq!(end_of(TCP_ACK | TCP_FIN, FlowState::BACKEND_FIN), FlowState::BACKEND_FIN);
        assert_eq!(end_of(TCP_ACK | TCP_SYN, FlowState::CLIENT_FIN), FlowState::NEW);
    }

    #[test]
    fn only_the_ack_of_an_answer_confirms_a_connection_that_is_open() {
        let confirms = |flags, state| is_confirmation(Protocol::Tcp, flags, state, 0, 0, 4);
        assert!(confirms(TCP_ACK, FlowState::ANSWERED));
        assert!(confirms(TCP_ACK, FlowState::ANSWERED.with(FlowState::BACKEND_FIN)));
        assert!(!confirms(TCP_ACK, FlowState::NEW));
        assert!(!confirms(TCP_SYN, FlowState::ANSWERED));
        assert!(!confirms(TCP_ACK | TCP_SYN, FlowState::ANSWERED));
        assert!(!confirms(TCP_ACK, FlowState::ANSWERED.with(FlowState::RESET)));
    }

    #[test]
    fn a_datagram_confirms_after_two_seconds_also_where_the_clock_wraps() {
        for opened in [0, 7, u32::MAX - 3] {
            let after = |ticks: u32| {
                let now = opened.wrapping_add(ticks);
                is_confirmation(Protocol::Udp, 0, FlowState::ANSWERED, opened, now, 4)
            };
            assert_eq!([after(0), after(7), after(8), after(100)], [false, false, true, true]);
        }
    }
}
