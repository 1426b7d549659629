//! What may happen in a conversation.

use super::stage::{Endpoints, PODS};
use proptest::{collection::vec, prelude::*, sample::select};

/// Connections, and the ports that they come from.
pub(super) const CONNECTIONS: usize = 3;
pub(super) const PORTS: u16 = 2;
pub(super) const DATAGRAM_SOCKETS: usize = 2;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Client,
    Server,
}

/// Connections by number. An act that its connection is in no state for is left out.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// From one of few ports, so that ports come round again.
    Connect {
        connection: usize,
        port: u16,
    },
    Say {
        connection: usize,
        by: By,
        length: usize,
    },
    /// No more is said by this end: it sends a FIN and goes on to listen.
    Finish {
        connection: usize,
        by: By,
    },
    Close {
        connection: usize,
        by: By,
    },
    Reset {
        connection: usize,
        by: By,
    },
    /// A datagram and the answer to it.
    Ask {
        socket: usize,
        length: usize,
    },
    Endpoints(Endpoints),
}

/// Whether it is over IPv6, and what happens.
pub(super) fn conversation() -> impl Strategy<Value = (bool, Vec<Act>)> {
    (proptest::bool::ANY, vec(act(), 1..24))
}

fn act() -> impl Strategy<Value = Act> {
    let connection = || 0..CONNECTIONS;
    let by = || select(vec![By::Client, By::Server]);
    let length = || select(vec![1_usize, 100, 1447, 5000]);
    prop_oneof![
        120 => (connection(), 0..PORTS).prop_map(|(connection, port)| Act::Connect { connection, port }),
        80 => (connection(), by(), length())
            .prop_map(|(connection, by, length)| Act::Say { connection, by, length }),
        30 => (connection(), by()).prop_map(|(connection, by)| Act::Finish { connection, by }),
        80 => (connection(), by()).prop_map(|(connection, by)| Act::Close { connection, by }),
        30 => (connection(), by()).prop_map(|(connection, by)| Act::Reset { connection, by }),
        // Not larger than the MTU, and not smaller than what an ICMP error takes.
        50 => (0..DATAGRAM_SOCKETS, select(vec![60_usize, 500, 1300]))
            .prop_map(|(socket, length)| Act::Ask { socket, length }),
        6 => (vec(proptest::bool::weighted(0.3), PODS..=PODS), proptest::bool::ANY).prop_map(
            |(ready, listed)| {
                Act::Endpoints(Endpoints { ready: [ready[0], ready[1], ready[2]], unready_are_listed: listed })
            },
        ),
    ]
}
