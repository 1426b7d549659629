use super::*;
use crate::{
    abi::{Address, Algorithm, BackendState, FlowState, Liveness, Port, Protocol, ServiceKey, Slot},
    transition::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};
use std::net::IpAddr;

const HERE: Here = Here { interface: 1, now: 1000 };

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

/// A frontend 10.13.0.1:80 with two backends in round robin.
fn model(protocol: Protocol) -> Model {
    let mut model = Model::new(Limits {
        flows: 8,
        flows_per_interface: 2,
        ticks_per_second: 4,
        hairpin: [address("169.254.42.1"), address("fd6d:6373:7072::1")],
    });
    let vip = address("10.13.0.1");
    let slots = [("10.10.0.6", 1), ("10.12.0.6", 2)].map(|(backend, id)| {
        model.tables.mark(Direction::ToPod, &address(backend));
        model.tables.backend_state.insert(id, BackendState::new(1, Liveness::Live));
        Slot { address: address(backend), port: Port::new(8080), backend: id }
    });
    model.tables.mark(Direction::FromPod, &vip);
    let frontend = Frontend {
        service: 1,
        algorithm: Algorithm::RoundRobin,
        affinity_seconds: 0,
        slots: slots.to_vec(),
        probe: None,
    };
    model.tables.frontends.insert(ServiceKey::new(vip, Port::new(80), protocol.number()), frontend);
    model
}

fn packet(from: (&str, u16), to: (&str, u16), protocol: Protocol, tcp_flags: u8, sequence: u32) -> Packet {
    let segment = Segment {
        protocol,
        source_port: Port::new(from.1),
        destination_port: Port::new(to.1),
        tcp_flags,
        sequence: sequence.to_be(),
        acknowledgment: 0,
        header: 20,
    };
    Packet { source: address(from.0), destination: address(to.0), body: Body::Segment(segment), bytes: 40 }
}

fn to_vip(model: &mut Model, port: u16, flags: u8, sequence: u32) -> Outcome {
    let client = ("10.12.0.9", port);
    model.from_pod(packet(client, ("10.13.0.1", 80), Protocol::Tcp, flags, sequence), HERE)
}

fn to_client(model: &mut Model, backend: &str, port: u16, flags: u8) -> Outcome {
    model.to_pod(packet((backend, 8080), ("10.12.0.9", port), Protocol::Tcp, flags, 77), HERE)
}

#[test]
fn a_connection_from_its_first_packet_to_its_last() {
    let mut model = model(Protocol::Tcp);
    let first = to_vip(&mut model, 1, TCP_SYN, 5);
    assert_eq!((first.verdict, first.packet.destination), (Verdict::NewFlow, address("10.10.0.6")));
    let answer = to_client(&mut model, "10.10.0.6", 1, TCP_SYN | TCP_ACK);
    assert_eq!((answer.verdict, answer.packet.source), (Verdict::Replied, address("10.13.0.1")));
    assert!(model.tables.established.flows.is_empty());
    assert_eq!(to_vip(&mut model, 1, TCP_ACK, 6).verdict, Verdict::Forwarded);
    assert_eq!(model.tables.established.flows.len(), 1);
    assert_eq!(model.tables.interface_flows[&1], 1);
    to_vip(&mut model, 1, TCP_ACK | TCP_FIN, 6);
    assert_eq!(model.tables.established.flows.len(), 1, "half closed");
    to_client(&mut model, "10.10.0.6", 1, TCP_ACK | TCP_FIN);
    assert_eq!(model.tables.established, Place::default());
    assert_eq!(model.tables.interface_flows[&1], 0);
    assert_eq!(to_vip(&mut model, 1, TCP_ACK, 7).verdict, Verdict::Forwarded);
    assert_eq!(to_vip(&mut model, 1, TCP_SYN, 9).verdict, Verdict::NewFlow);
}

#[test]
fn twenty_nine_connections_are_15_and_14() {
    let mut model = model(Protocol::Tcp);
    for port in 1..=29 {
        to_vip(&mut model, port, TCP_SYN, 1);
        to_vip(&mut model, port, TCP_SYN, 1);
        to_vip(&mut model, port, TCP_RST, 1);
    }
    assert_eq!([1, 2].map(|id| model.counters.backends[&id].flows), [15, 14]);
}

#[test]
fn an_interface_has_no_more_than_its_share() {
    let mut model = model(Protocol::Tcp);
    for port in 1..=3 {
        let Outcome { packet, .. } = to_vip(&mut model, port, TCP_SYN, 1);
        let backend = packet.destination.to_ip().to_string();
        to_client(&mut model, &backend, port, TCP_SYN | TCP_ACK);
        to_vip(&mut model, port, TCP_ACK, 2);
    }
    assert_eq!(model.tables.established.flows.len(), 2);
    assert_eq!(model.counters.verdicts[&Verdict::NotPromoted], 1);
}

#[test]
fn a_frontend_without_backends_refuses() {
    let mut model = model(Protocol::Tcp);
    model.tables.frontends.values_mut().for_each(|frontend| frontend.slots.clear());
    let refused = to_vip(&mut model, 1, TCP_SYN, 5);
    assert_eq!(refused.verdict, Verdict::Rejected);
    let Body::Segment(reset) = refused.packet.body else { panic!("no RST: {:?}", refused.packet) };
    assert_eq!((reset.tcp_flags, reset.acknowledgment), (TCP_RST | TCP_ACK, 6_u32.to_be()));
    assert_eq!(to_vip(&mut model, 1, TCP_ACK, 5).verdict, Verdict::UnknownConnection);
}

#[test]
fn one_flow_is_a_probe_and_takes_no_turn() {
    let mut model = model(Protocol::Tcp);
    let probed = Slot { address: address("10.10.0.7"), port: Port::new(8080), backend: 3 };
    model.tables.frontends.values_mut().for_each(|frontend| frontend.probe = Some(probed));
    let backends = [1, 2, 3].map(|port| to_vip(&mut model, port, TCP_SYN, 5).packet.destination);
    assert_eq!(backends, ["10.10.0.7", "10.10.0.6", "10.12.0.6"].map(address));
    assert_eq!(model.counters.backends[&3].flows, 1);
}

#[test]
fn a_connection_that_was_ended_is_reset_until_a_new_one_begins() {
    let mut model = model(Protocol::Tcp);
    to_vip(&mut model, 1, TCP_SYN, 5);
    to_client(&mut model, "10.10.0.6", 1, TCP_SYN | TCP_ACK);
    model.tables.transient.flows.values_mut().for_each(|flow| flow.state = flow.state.with(FlowState::CUT));
    for _ in 0..2 {
        let ended = to_vip(&mut model, 1, TCP_ACK, 6);
        assert_eq!((ended.verdict, ended.packet.source), (Verdict::Ended, address("10.13.0.1")));
        let Body::Segment(reset) = ended.packet.body else { panic!("no RST: {:?}", ended.packet) };
        assert_eq!(reset.tcp_flags, TCP_RST, "what acknowledges says which number is expected");
    }
    // A RST is not, and tells the backend.
    let own = to_vip(&mut model, 1, TCP_RST, 6);
    assert_eq!((own.verdict, own.packet.destination), (Verdict::Forwarded, address("10.10.0.6")));
    assert_eq!(to_vip(&mut model, 1, TCP_SYN, 9).verdict, Verdict::NewFlow);
}
