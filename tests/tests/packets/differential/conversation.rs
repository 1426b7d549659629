//! What may happen, in random order: short enough to be read when it has shrunk.

use super::stage::{BACKENDS, CLIENTS, SERVICES};
use mcs_proxy_ebpf::abi::Liveness;
use proptest::{collection::vec, option, prelude::*, sample::select};

/// What happens one after the other.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) v6: bool,
    pub(super) steps: Vec<Step>,
}

/// Clients, services and backends by number.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A client calls a Service. Over UDP there are no flags and no sequence number;
    /// over SCTP they are the first chunk and the initiate tag.
    Call {
        client: u8,
        service: u8,
        flags: &'static str,
        sequence: u32,
        payload: u8,
        elsewhere: bool,
    },
    /// A backend speaks to a client: the one of the client's flow to the service, or another.
    Answer {
        client: u8,
        service: u8,
        backend: Option<u8>,
        flags: &'static str,
        elsewhere: bool,
    },
    /// SYN, SYN-ACK and ACK.
    Handshake {
        client: u8,
        service: u8,
        sequence: u32,
    },
    /// An ICMP error about a client's packet: by a router, or by the backend itself.
    ErrorAboutCall {
        client: u8,
        service: u8,
        kind: u8,
        by_backend: bool,
        elsewhere: bool,
    },
    /// An ICMP error of the client about an answer.
    ErrorAboutAnswer {
        client: u8,
        service: u8,
        kind: u8,
    },
    /// The host's ICMP redirect about a client's packet.
    Redirect {
        client: u8,
        service: u8,
    },
    /// Another port of the VIP, or an address that is none of ours.
    CallOther {
        client: u8,
        vip: Option<u8>,
        flags: &'static str,
    },
    /// Not by way of a Service; without flags a datagram.
    CallDirectly {
        client: u8,
        backend: u8,
        flags: &'static str,
    },
    Ping {
        client: u8,
        vip: Option<u8>,
    },
    /// The Service gets other endpoints, in this order, and one more for one flow.
    Endpoints {
        service: u8,
        backends: Vec<u8>,
        probe: Option<u8>,
    },
    /// The daemon ends a TCP connection, as it does where a cluster is dropped; counted over all there are.
    End {
        established: bool,
        number: u8,
    },
    Backend {
        backend: u8,
        liveness: Liveness,
        other_generation: bool,
    },
    TimePasses {
        ticks: u32,
    },
    /// One half of a flow is gone, as if evicted; counted over all there are.
    LoseTransient {
        reply: bool,
        number: u8,
    },
    LoseEstablishedReply {
        number: u8,
    },
}

pub(super) fn any() -> impl Strategy<Value = Conversation> {
    (any_bool(), vec(step(), 1..40)).prop_map(|(v6, steps)| Conversation { v6, steps })
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

fn seldom() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.04)
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let service = || 0..u8::try_from(SERVICES.len()).unwrap();
    let calls = select(vec!["S", "S", "A", "A", "A", "AF", "AF", "R", "AR", "SA", "ASF", ""]);
    let answers = select(vec!["SA", "SA", "SA", "A", "A", "AF", "AF", "R", "AR", "S"]);
    // Room enough for an ICMP error in place of the datagram, or too little.
    let payload = select(vec![0_u8, 11, 48, 120]);
    prop_oneof![
        12 => (client(), service(), calls, 1..4_u32, payload, seldom()).prop_map(
            |(client, service, flags, sequence, payload, elsewhere)| {
                Step::Call { client, service, flags, sequence, payload, elsewhere }
            },
        ),
        9 => (client(), service(), option::weighted(0.1, 0..BACKENDS), answers, seldom()).prop_map(
            |(client, service, backend, flags, elsewhere)| {
                Step::Answer { client, service, backend, flags, elsewhere }
            },
        ),
        6 => (client(), service(), 1..4_u32)
            .prop_map(|(client, service, sequence)| Step::Handshake { client, service, sequence }),
        1 => (client(), service(), 0..4_u8, any_bool(), seldom()).prop_map(
            |(client, service, kind, by_backend, elsewhere)| {
                Step::ErrorAboutCall { client, service, kind, by_backend, elsewhere }
            },
        ),
        1 => (client(), service(), 0..4_u8)
            .prop_map(|(client, service, kind)| Step::ErrorAboutAnswer { client, service, kind }),
        1 => (client(), service()).prop_map(|(client, service)| Step::Redirect { client, service }),
        1 => (client(), option::of(1..3_u8), select(vec!["S", "A"]))
            .prop_map(|(client, vip, flags)| Step::CallOther { client, vip, flags }),
        1 => (client(), 0..BACKENDS, select(vec!["S", "S", "A", "", ""]))
            .prop_map(|(client, backend, flags)| Step::CallDirectly { client, backend, flags }),
        1 => (client(), option::of(1..3_u8)).prop_map(|(client, vip)| Step::Ping { client, vip }),
        2 => (service(), vec(0..BACKENDS, 0..4), option::weighted(0.4, 0..BACKENDS))
            .prop_map(|(service, backends, probe)| Step::Endpoints { service, backends, probe }),
        1 => (any_bool(), 0..4_u8).prop_map(|(established, number)| Step::End { established, number }),
        1 => (0..BACKENDS, select(vec![Liveness::Gone, Liveness::Live, Liveness::Serving]), any_bool())
            .prop_map(|(backend, liveness, other_generation)| {
                Step::Backend { backend, liveness, other_generation }
            }),
        3 => select(vec![1, 2, 3, 100]).prop_map(|ticks| Step::TimePasses { ticks }),
        1 => (any_bool(), 0..8_u8).prop_map(|(reply, number)| Step::LoseTransient { reply, number }),
        1 => (0..4_u8).prop_map(|number| Step::LoseEstablishedReply { number }),
    ]
}
