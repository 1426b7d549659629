//! The programs and the model side by side.

use super::{
    conversation::{Conversation, Step},
    frame::Frame,
    snapshot::Snapshot,
    stage::{self, BACKENDS, FLOWS, SCTP, SERVICES, SHARE, TCP, UDP},
};
use crate::programs::{Frontend, POD, Programs, hairpin_address};
use mcs_proxy_ebpf::{
    abi::{BackendState, Direction, Flow, MapSizes, Port, Tuple, Verdict},
    model::{self, Here, Limits, Model},
};
use std::{collections::BTreeMap, net::SocketAddr};

const SIZES: MapSizes = MapSizes {
    frontends: 16,
    elements: 128,
    backend_ids: 16,
    flows: FLOWS,
    // Nothing is evicted but what a conversation says.
    transient: 4096,
    affinity: 4096,
    fragments: 16,
    sockets: 16,
};

/// How often a packet may draw a backend: once, and again where a tuple is taken.
const DRAWS: u32 = 4;
/// All that may come of it.
const LOTS: u32 = (BACKENDS as u32).pow(DRAWS);

pub(super) struct Lockstep {
    pub(super) programs: Programs,
    pub(super) model: Model,
    /// The counters after the last packet.
    pub(super) verdicts: BTreeMap<Verdict, u64>,
    /// How many ticks have passed for the model and not for the kernel: instead, all dates in the maps were moved.
    pub(super) offset: u32,
    pub(super) v6: bool,
    /// An interface that is not the pods'.
    pub(super) elsewhere: u32,
    /// Flows that were probes, over all conversations.
    pub(super) probes: usize,
    /// While the last packet was looked at.
    tick_turned: bool,
}

impl Lockstep {
    pub(super) fn new() -> Self {
        let mut programs = Programs::load_with_share(SIZES, SHARE);
        let elsewhere = mcs_proxy_tests::netns::add_veth("other", "peer").unwrap();
        for v6 in [false, true] {
            for service in 0..services() {
                let vip = stage::called(v6, service);
                let stage::Service { protocol, algorithm, affinity_seconds, .. } =
                    SERVICES[usize::from(service)];
                let slots = &[];
                let index = programs.add(&Frontend { vip, protocol, algorithm, affinity_seconds, slots });
                assert_eq!(index, id(v6, service));
            }
            for backend in 0..BACKENDS {
                programs.mark(Direction::ToPod, stage::backend(v6, backend));
            }
        }
        let verdicts = programs.verdicts();
        Self {
            programs,
            model: new_model(),
            verdicts,
            offset: 0,
            v6: false,
            elsewhere,
            probes: 0,
            tick_turned: false,
        }
    }

    /// How often a verdict was reached, over all conversations.
    pub(super) fn met(&self, verdict: Verdict) -> u64 {
        self.verdicts[&verdict]
    }

    /// A program that reads the clock twice may see a tick turn in between, and its model knows one date only: such a
    /// conversation is had anew.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn run(&mut self, conversation: &Conversation) -> Result<(), String> {
        let mut result = self.run_once(conversation);
        for _ in 0..4 {
            if result.is_ok() || !self.tick_turned {
                break;
            }
            result = self.run_once(conversation);
        }
        result
    }

    fn run_once(&mut self, conversation: &Conversation) -> Result<(), String> {
        self.begin(conversation.v6);
        for (number, step) in conversation.steps.iter().enumerate() {
            self.step(step).map_err(|difference| format!("step {}, {step:?}: {difference}", number + 1))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let v6 = self.v6;
        match *step {
            Step::Call { client, service, flags, sequence, payload, elsewhere } => {
                let frame = self.call(client, service, flags, sequence, payload);
                self.run_from_pod(&frame, elsewhere)
            }
            Step::Answer { client, service, backend, flags, elsewhere } => {
                let from =
                    backend.map_or_else(|| self.backend_of(client, service), |n| stage::backend(v6, n));
                self.run_answer(client, service, from, flags, elsewhere)
            }
            Step::Handshake { client, service, sequence } => {
                self.run_from_pod(&self.call(client, service, "S", sequence, 0), false)?;
                let backend = self.backend_of(client, service);
                self.run_answer(client, service, backend, "SA", false)?;
                self.run_from_pod(&self.call(client, service, "A", sequence + 1, 0), false)
            }
            Step::ErrorAboutCall { client, service, kind, by_backend, elsewhere } => {
                let (to, backend) = (self.wire_of(client, service), self.backend_of(client, service));
                let from = if by_backend { backend.ip() } else { stage::router(v6) };
                let frame = Frame::error(from, to.ip(), kind, protocol(service), [to, backend]);
                self.run_to_pod(&frame, elsewhere)
            }
            Step::ErrorAboutAnswer { client, service, kind } => {
                let (from, vip) = (stage::client(v6, client), stage::called(v6, service));
                let frame = Frame::error(from.ip(), vip.ip(), kind, protocol(service), [vip, from]);
                self.run_from_pod(&frame, false)
            }
            // Of SCTP the library that writes redirects knows nothing.
            Step::Redirect { service, .. } if protocol(service) == SCTP => Ok(()),
            Step::Redirect { client, service } => {
                let (to, backend) = (self.wire_of(client, service), self.backend_of(client, service));
                let frame = Frame::redirect(stage::router(v6), to.ip(), protocol(service), [to, backend]);
                self.run_to_pod(&frame, false)
            }
            Step::CallOther { client, vip, flags } => {
                let to = vip.map_or_else(|| stage::router(v6), |vip| stage::vip(v6, vip));
                let (from, to) = (stage::client(v6, client), SocketAddr::new(to, 443));
                self.run_from_pod(&Frame::segment(TCP, from, to, flags, 1, 0), false)
            }
            Step::CallDirectly { client, backend, flags } => {
                let (from, to) = (stage::client(v6, client), stage::backend(v6, backend));
                let (protocol, sequence) = if flags.is_empty() { (UDP, 0) } else { (TCP, 1) };
                self.run_from_pod(&Frame::segment(protocol, from, to, flags, sequence, 0), false)
            }
            Step::Ping { client, vip } => {
                let to = vip.map_or_else(|| stage::router(v6), |vip| stage::vip(v6, vip));
                self.run_from_pod(&Frame::ping(stage::client(v6, client).ip(), to), false)
            }
            Step::Endpoints { service, ref backends, probe } => {
                self.set_endpoints(service, backends, probe);
                Ok(())
            }
            Step::End { established, number } => {
                self.end(established, usize::from(number));
                Ok(())
            }
            Step::Backend { backend, liveness, other_generation } => {
                self.set_backend(backend, BackendState::new(1 + u32::from(other_generation), liveness));
                Ok(())
            }
            Step::TimePasses { ticks } => {
                self.pass(ticks);
                Ok(())
            }
            Step::LoseTransient { reply, number } => {
                self.lose_transient(reply, usize::from(number));
                Ok(())
            }
            Step::LoseEstablishedReply { number } => {
                self.lose_established_reply(usize::from(number));
                Ok(())
            }
        }
    }

    fn call(&self, client: u8, service: u8, flags: &str, sequence: u32, payload: u8) -> Frame {
        let (from, to) = (stage::client(self.v6, client), stage::called(self.v6, service));
        Frame::segment(protocol(service), from, to, flags, sequence, payload)
    }

    /// What a backend sends back; if that is the client itself, it does so to whom it seems to be called by.
    fn run_answer(
        &mut self,
        client: u8,
        service: u8,
        from: SocketAddr,
        flags: &str,
        elsewhere: bool,
    ) -> Result<(), String> {
        let to = self.wire_of(client, service);
        let segment = |to| Frame::segment(protocol(service), from, to, flags, 77, 6);
        if from.ip() == to.ip() {
            let caller = hairpin_address(!self.v6);
            return self.run_from_pod(&segment(SocketAddr::new(caller, to.port())), elsewhere);
        }
        self.run_to_pod(&segment(to), elsewhere)
    }

    /// The client's flow to the Service, if there is one.
    fn flow_of(&self, client: u8, service: u8) -> Option<&Flow> {
        let (from, to) = (stage::client(self.v6, client), stage::called(self.v6, service));
        let key = Tuple::new(from.ip().into(), port(from), to.ip().into(), port(to), protocol(service));
        let tables = &self.model.tables;
        tables.established.flows.get(&key).or_else(|| tables.transient.flows.get(&key))
    }

    /// Where it goes.
    fn backend_of(&self, client: u8, service: u8) -> SocketAddr {
        match self.flow_of(client, service) {
            Some(flow) => SocketAddr::new(flow.backend.to_ip(), flow.backend_port.get()),
            None => stage::backend(self.v6, 0),
        }
    }

    /// From where it comes, to its backend.
    fn wire_of(&self, client: u8, service: u8) -> SocketAddr {
        let mut from = stage::client(self.v6, client);
        if let Some(flow) = self.flow_of(client, service) {
            from.set_port(flow.wire_port.get());
        }
        from
    }

    fn run_from_pod(&mut self, frame: &Frame, elsewhere: bool) -> Result<(), String> {
        self.packet("from_pod", frame, elsewhere, Model::from_pod)
    }

    fn run_to_pod(&mut self, frame: &Frame, elsewhere: bool) -> Result<(), String> {
        self.packet("to_pod", frame, elsewhere, Model::to_pod)
    }

    /// Runs both on the packet, and compares all there is.
    fn packet(
        &mut self,
        program: &str,
        frame: &Frame,
        elsewhere: bool,
        run: impl Fn(&mut Model, model::Packet, Here) -> model::Outcome,
    ) -> Result<(), String> {
        let interface = if elsewhere { self.elsewhere } else { POD };
        let before = self.programs.now();
        let got = self.programs.run_counted(program, &frame.bytes(), interface, &mut self.verdicts);
        let after = self.programs.now();
        self.tick_turned = before != after;
        let snapshot = Snapshot::take(self);
        // The program may have seen either date, and drawn any lot.
        let mut difference = None;
        for now in before..=after {
            for lots in 0..LOTS {
                let mut model = self.model.clone();
                model.lots = (0..DRAWS).map(|draw| lots / u32::from(BACKENDS).pow(draw)).collect();
                model.other_port = source_port(&got.bytes);
                let here = Here { interface, now: now.wrapping_add(self.offset) };
                let expected = run(&mut model, frame.packet.clone(), here);
                let bytes = frame.after(expected.verdict, expected.packet.clone()).bytes();
                let found = if (got.verdict, &got.bytes) == (expected.verdict, &bytes) {
                    snapshot.difference(&model)
                } else {
                    Some(format!("the programs: {got:02x?}; the model: {expected:?}, {bytes:02x?}"))
                };
                let Some(found) = found else {
                    self.probes += waiting(&self.model) - waiting(&model);
                    self.model = model;
                    return Ok(());
                };
                difference.get_or_insert(found);
            }
        }
        Err(difference.unwrap_or_default())
    }
}

pub(super) fn new_model() -> Model {
    let hairpin = [true, false].map(|v4| hairpin_address(v4).into());
    let flows = FLOWS as usize;
    let limits = Limits { flows, flows_per_interface: SHARE, ticks_per_second: 1, hairpin };
    let mut model = Model::new(limits);
    for address in hairpin {
        model.tables.mark(Direction::FromPod, &address);
    }
    for v6 in [false, true] {
        for service in 0..services() {
            model.tables.mark(Direction::FromPod, &stage::called(v6, service).ip().into());
        }
        for backend in 0..BACKENDS {
            model.tables.mark(Direction::ToPod, &stage::backend(v6, backend).ip().into());
        }
    }
    model
}

/// Probes that no flow has taken yet.
fn waiting(model: &Model) -> usize {
    model.tables.frontends.values().filter(|frontend| frontend.probe.is_some()).count()
}

/// Of a packet without options or extension headers.
fn source_port(bytes: &[u8]) -> Port {
    let offset = if bytes[12..14] == [0x08, 0x00] { 34 } else { 54 };
    Port::new(u16::from_be_bytes([bytes[offset], bytes[offset + 1]]))
}

pub(super) fn services() -> u8 {
    u8::try_from(SERVICES.len()).unwrap()
}

/// Index of the frontend, and id of the service.
pub(super) fn id(v6: bool, service: u8) -> u32 {
    1 + u32::from(service) + if v6 { u32::from(services()) } else { 0 }
}

fn protocol(service: u8) -> u8 {
    SERVICES[usize::from(service)].protocol
}

pub(super) fn port(address: SocketAddr) -> Port {
    Port::new(address.port())
}
