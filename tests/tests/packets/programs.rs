//! The real programs on maps of the test's own, run with BPF_PROG_TEST_RUN in a network namespace of the test's own.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use caps::{CapSet, Capability};
use mcs_proxy::dataplane::{
    hairpin::Hairpin,
    loader::{enter_stages, patiently},
};
use mcs_proxy_ebpf::abi::{
    self, Affinity, AffinityKey, Algorithm, BackendCounters, BackendState, Direction, Element, Flow,
    FlowState, Header, Liveness, MapName, MapSizes, Reply, ServiceCounters, ServiceKey, Slot, Stage, Tuple,
    Verdict, hot_bit,
};
use mcs_proxy_tests::netns;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

/// The interface of the pod in whose name packets are run: loopback's index, which every namespace has.
pub(crate) const POD: u32 = 1;

/// `TCX_NEXT`: the next program on the hook runs.
const NEXT: i32 = -1;
/// `TCX_DROP`.
const DROP: i32 = 2;
/// `TCX_REDIRECT`.
const REDIRECT: i32 = 7;

/// How many established flows each interface may have.
pub(crate) const FLOWS_PER_INTERFACE: u32 = 512;

/// Sizes that are enough for most tests.
pub(crate) const SMALL: MapSizes = MapSizes {
    frontends: 64,
    elements: 256,
    backend_ids: 64,
    flows: 1024,
    transient: 1024,
    affinity: 64,
    fragments: 64,
    sockets: 64,
};

pub(crate) struct Programs {
    ebpf: Ebpf,
    stages: ProgramArray<MapData>,
    next_frontend: u32,
    next_element: u32,
}

/// Where a flow is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Established,
    Transient,
}

/// What a program did with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) bytes: Vec<u8>,
}

/// A frontend as the tests write it.
pub(crate) struct Frontend<'a> {
    pub(crate) vip: SocketAddr,
    pub(crate) protocol: u8,
    pub(crate) algorithm: Algorithm,
    pub(crate) affinity_seconds: u32,
    /// Address and backend id of each slot.
    pub(crate) slots: &'a [(SocketAddr, u32)],
}

#[expect(clippy::wrong_self_convention, reason = "`from_pod` and `to_pod` are the programs' names")]
impl Programs {
    pub(crate) fn load() -> Self {
        Self::load_with(SMALL)
    }

    pub(crate) fn load_with(sizes: MapSizes) -> Self {
        Self::load_with_share(sizes, FLOWS_PER_INTERFACE.max(sizes.flows / 4))
    }

    /// With so many established flows for each interface. A second passes with every tick.
    pub(crate) fn load_with_share(sizes: MapSizes, flows_per_interface: u32) -> Self {
        Self::load_at(sizes, flows_per_interface, 1)
    }

    pub(crate) fn load_at(sizes: MapSizes, flows_per_interface: u32, ticks_per_second: u32) -> Self {
        Self::load_as(sizes, flows_per_interface, ticks_per_second, false)
    }

    /// As `--redirect` loads them.
    pub(crate) fn load_redirecting() -> Self {
        Self::load_as(SMALL, FLOWS_PER_INTERFACE.max(SMALL.flows / 4), 1, true)
    }

    fn load_as(sizes: MapSizes, flows_per_interface: u32, ticks_per_second: u32, redirect: bool) -> Self {
        netns::enter_new().expect("a network namespace needs root: run `cargo xtask test` as root");
        let (ebpf, stages) =
            with_three_capabilities(|| load(&sizes, flows_per_interface, ticks_per_second, redirect));
        let mut programs = Self { ebpf, stages, next_frontend: 1, next_element: 1 };
        for v4 in [true, false] {
            programs.mark(Direction::FromPod, SocketAddr::new(hairpin_address(v4), 0));
        }
        programs
    }

    /// Enters a frontend and returns its index, which is its service id as well.
    pub(crate) fn add(&mut self, frontend: &Frontend<'_>) -> u32 {
        let index = self.next_frontend;
        self.next_frontend += 1;
        let extent = self.write_extent(index, frontend);
        self.array::<u64>(MapName::Frontends).set(index, u64::from(extent), 0).unwrap();
        self.mark(Direction::FromPod, frontend.vip);
        let key = ServiceKey::new(frontend.vip.ip().into(), port(frontend.vip), frontend.protocol);
        self.hash::<ServiceKey, u32>(MapName::Services).insert(key, index, 0).unwrap();
        self.set_vip(frontend.vip, 0);
        index
    }

    /// What is said of a VIP as a whole.
    pub(crate) fn set_vip(&mut self, vip: SocketAddr, flags: abi::VipFlags) {
        self.hash(MapName::Vips).insert(abi::Address::from(vip.ip()), flags, 0).unwrap();
    }

    /// Writes an extent for frontend `index` and returns its first element; nothing points to it yet.
    pub(crate) fn write_extent(&mut self, index: u32, frontend: &Frontend<'_>) -> u32 {
        let extent = self.next_element;
        let count = u32::try_from(frontend.slots.len()).unwrap();
        self.next_element += 1 + count;
        let header = Header {
            count,
            service: index,
            frontend: index,
            algorithm: frontend.algorithm,
            affinity_seconds: frontend.affinity_seconds,
            packets_only: false,
            probe: false,
        };
        self.set_element(extent, Element::header(&header));
        for (offset, (address, backend)) in frontend.slots.iter().enumerate() {
            let slot = Slot { address: address.ip().into(), port: port(*address), backend: *backend };
            self.set_element(extent + 1 + u32::try_from(offset).unwrap(), Element::slot(&slot));
            self.set_backend(*backend, BackendState::new(1, Liveness::Live));
            self.mark(Direction::ToPod, *address);
        }
        extent
    }

    /// Gives the extent that was written last a slot for one flow alone.
    pub(crate) fn write_probe(&mut self, extent: u32, (address, backend): (SocketAddr, u32)) {
        let written = self.array::<Element>(MapName::Backends).get(&extent, 0).unwrap();
        let header = written.as_header().unwrap();
        assert_eq!(self.next_element, extent + 1 + header.count);
        self.next_element += 1;
        self.set_element(extent, Element::header(&Header { probe: true, ..header }));
        let slot = Slot { address: address.ip().into(), port: port(address), backend };
        self.set_element(extent + 1 + header.count, Element::slot(&slot));
        self.set_backend(backend, BackendState::new(1, Liveness::Serving));
        self.mark(Direction::ToPod, address);
    }

    pub(crate) fn set_element(&mut self, index: u32, element: Element) {
        self.array::<Element>(MapName::Backends).set(index, element, 0).unwrap();
    }

    pub(crate) fn publish(&mut self, frontend: u32, extent: u32) {
        self.array::<u64>(MapName::Frontends).set(frontend, u64::from(extent), 0).unwrap();
    }

    pub(crate) fn set_backend(&mut self, backend: u32, state: BackendState) {
        self.array::<u64>(MapName::BackendState).set(backend, state.word(), 0).unwrap();
    }

    /// Sets the address's bit in `hot`.
    pub(crate) fn mark(&mut self, direction: Direction, address: SocketAddr) {
        let (word, mask) = hot_bit(direction, &address.ip().into());
        let mut hot = self.array::<u64>(MapName::Hot);
        let bits = hot.get(&word, 0).unwrap();
        hot.set(word, bits | mask, 0).unwrap();
    }

    pub(crate) fn from_pod(&mut self, packet: &[u8]) -> Outcome {
        self.run("from_pod", packet, POD)
    }

    pub(crate) fn to_pod(&mut self, packet: &[u8]) -> Outcome {
        self.run("to_pod", packet, POD)
    }

    /// Runs a program once on a packet of the interface given and tells its verdict by the counter that moved: by
    /// one, and no other.
    pub(crate) fn run(&mut self, program: &str, packet: &[u8], interface: u32) -> Outcome {
        let mut verdicts = self.verdicts();
        self.run_counted(program, packet, interface, &mut verdicts)
    }

    /// The same, for who runs many: `verdicts` are the counters as they were left and as they are now.
    pub(crate) fn run_counted(
        &mut self,
        program: &str,
        packet: &[u8],
        interface: u32,
        verdicts: &mut BTreeMap<Verdict, u64>,
    ) -> Outcome {
        let (returned, bytes) = test_run(self.program(program), packet, interface);
        let before = std::mem::replace(verdicts, self.verdicts());
        let moved: Vec<_> = verdicts
            .iter()
            .filter(|(verdict, count)| before[verdict] != **count && **verdict != Verdict::NotPromoted)
            .collect();
        let [(verdict, count)] = moved[..] else { panic!("one verdict a packet, not {moved:?}") };
        assert_eq!(*count, before[verdict] + 1);
        let expected = match verdict.action() {
            abi::Action::Next => NEXT,
            abi::Action::Drop => DROP,
            abi::Action::Return | abi::Action::Redirect => REDIRECT,
        };
        assert_eq!(returned, expected, "{verdict:?}");
        Outcome { verdict: *verdict, bytes }
    }

    /// How many instructions the verifier walked through.
    pub(crate) fn instructions(&mut self, program: &str) -> u32 {
        self.program(program).info().unwrap().verified_instruction_count().unwrap()
    }

    pub(crate) fn program(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).unwrap().try_into().unwrap()
    }

    pub(crate) fn verdict(&self, verdict: Verdict) -> u64 {
        self.verdicts()[&verdict]
    }

    pub(crate) fn verdicts(&self) -> BTreeMap<Verdict, u64> {
        let map = PerCpuArray::<_, u64>::try_from(self.ebpf.map("verdicts").unwrap()).unwrap();
        Verdict::ALL
            .into_iter()
            .map(|verdict| (verdict, map.get(&(verdict as u32), 0).unwrap().iter().sum()))
            .collect()
    }

    pub(crate) fn service_counters(&self, service: u32) -> ServiceCounters {
        let map = self.ebpf.map("service_counters").unwrap();
        let map = PerCpuArray::<_, ServiceCounters>::try_from(map).unwrap();
        let cpus = map.get(&service, 0).unwrap();
        cpus.iter().fold(ServiceCounters::default(), |sum, cpu| ServiceCounters {
            flows: sum.flows + cpu.flows,
            packets_in: sum.packets_in + cpu.packets_in,
            packets_out: sum.packets_out + cpu.packets_out,
            bytes_in: sum.bytes_in + cpu.bytes_in,
            bytes_out: sum.bytes_out + cpu.bytes_out,
        })
    }

    pub(crate) fn backend_counters(&self, backend: u32) -> BackendCounters {
        let map = self.ebpf.map("backend_counters").unwrap();
        let map = PerCpuArray::<_, BackendCounters>::try_from(map).unwrap();
        let cpus = map.get(&backend, 0).unwrap();
        cpus.iter().fold(BackendCounters::default(), |sum, cpu| BackendCounters {
            flows: sum.flows + cpu.flows,
            first_replies: sum.first_replies + cpu.first_replies,
            connects: sum.connects + cpu.connects,
            pad: 0,
            bytes: sum.bytes + cpu.bytes,
        })
    }

    /// The flows of one place and the replies of it.
    pub(crate) fn flows_in(&self, place: Place) -> (BTreeMap<Tuple, Flow>, BTreeMap<Tuple, Reply>) {
        let (flows, replies) = match place {
            Place::Established => ("flows", "replies"),
            Place::Transient => ("transient", "transient_replies"),
        };
        let flows = HashMap::<_, Tuple, Flow>::try_from(self.ebpf.map(flows).unwrap()).unwrap();
        let replies = HashMap::<_, Tuple, Reply>::try_from(self.ebpf.map(replies).unwrap()).unwrap();
        (flows.iter().map(Result::unwrap).collect(), replies.iter().map(Result::unwrap).collect())
    }

    /// All flows and replies, as packets find them: what is established hides what is left of it elsewhere.
    pub(crate) fn flows(&self) -> (BTreeMap<Tuple, Flow>, BTreeMap<Tuple, Reply>) {
        let (mut flows, mut replies) = self.flows_in(Place::Transient);
        let (established, answers) = self.flows_in(Place::Established);
        flows.extend(established);
        replies.extend(answers);
        (flows, replies)
    }

    /// How many flows and replies there are.
    pub(crate) fn pairs(&self) -> (usize, usize) {
        let (flows, replies) = self.flows();
        (flows.len(), replies.len())
    }

    /// The state of the only flow there is.
    pub(crate) fn flow_state(&self) -> FlowState {
        let (flows, _) = self.flows();
        assert_eq!(flows.len(), 1, "one flow, not {flows:?}");
        flows.first_key_value().unwrap().1.state
    }

    /// Adds to the state of every flow, as the daemon does to end them.
    pub(crate) fn add_to_flows(&mut self, place: Place, state: FlowState) {
        let (flows, _) = self.flows_in(place);
        let map = match place {
            Place::Established => MapName::Flows,
            Place::Transient => MapName::Transient,
        };
        for (key, flow) in flows {
            let changed = Flow { state: flow.state.with(state), ..flow };
            self.hash::<Tuple, Flow>(map).insert(key, changed, 0).unwrap();
        }
    }

    /// How many established flows the interface is counted with.
    pub(crate) fn share(&mut self, interface: u32) -> u64 {
        self.array::<u64>(MapName::InterfaceFlows).get(&interface, 0).unwrap()
    }

    /// Takes one half of a pair away, as the kernel does when it evicts from an LRU.
    pub(crate) fn lose_reply(&mut self, place: Place) {
        let (_, replies) = self.flows_in(place);
        let map = match place {
            Place::Established => MapName::Replies,
            Place::Transient => MapName::TransientReplies,
        };
        for key in replies.keys() {
            self.hash::<Tuple, Reply>(map).remove(key).unwrap();
        }
    }

    /// Makes every established flow one that was seen last so many ticks ago.
    pub(crate) fn age_established(&mut self, ticks: u32) {
        let (flows, _) = self.flows_in(Place::Established);
        let mut map = self.hash::<Tuple, Flow>(MapName::Flows);
        for (key, flow) in flows {
            let aged = Flow { last_seen: flow.last_seen.wrapping_sub(ticks), ..flow };
            map.insert(key, aged, 0).unwrap();
        }
    }

    /// Says where an interface is, as the daemon does.
    pub(crate) fn set_place(&mut self, interface: u32, place: abi::Place) {
        self.hash(MapName::Interfaces).insert(interface, place, 0).unwrap();
    }

    /// Takes out a program that another one goes on with.
    pub(crate) fn clear_stage(&mut self, stage: Stage) {
        self.stages.clear_index(&(stage as u32)).unwrap();
    }

    /// Copies the only flow there is, as if the client had one like it from each of these ports.
    pub(crate) fn copy_flow_to_ports(&mut self, ports: RangeInclusive<u16>) {
        let (flows, replies) = self.flows_in(Place::Transient);
        let (key, flow) = flows.first_key_value().unwrap();
        let (wire, reply) = replies.first_key_value().unwrap();
        for port in ports.map(abi::Port::new) {
            let key = Tuple::new(key.client, port, key.peer, key.peer_port, key.protocol);
            let flow = Flow { client_port: port, wire_port: port, ..*flow };
            self.hash(MapName::Transient).insert(key, flow, 0).unwrap();
            let key = Tuple::new(wire.client, port, wire.peer, wire.peer_port, wire.protocol);
            let reply = Reply { client_port: port, wire_port: port, ..*reply };
            self.hash(MapName::TransientReplies).insert(key, reply, 0).unwrap();
        }
    }

    /// Waits until the programs' clock has moved on by this many ticks.
    pub(crate) fn wait_ticks(&mut self, ticks: u32) {
        let start = self.now();
        while self.now().wrapping_sub(start) < ticks {
            std::thread::yield_now();
        }
    }

    /// What the programs' clock shows, in ticks.
    pub(crate) fn now(&mut self) -> u32 {
        let options = TestRunOptions { data_in: Some(&[0; 14]), ..TestRunOptions::default() };
        self.program("clock").test_run(options).unwrap().return_value
    }

    /// Makes every affinity entry name another backend's id, as if two entries had been read as one.
    pub(crate) fn tear_affinity(&mut self) {
        let mut map = self.hash::<AffinityKey, Affinity>(MapName::Affinity);
        for (key, mut entry) in map.iter().map(Result::unwrap).collect::<Vec<_>>() {
            entry.backend_id ^= 1;
            map.insert(key, entry, 0).unwrap();
        }
    }

    pub(crate) fn array<T: aya::Pod>(&mut self, map: MapName) -> Array<&mut MapData, T> {
        Array::try_from(self.ebpf.map_mut(map.as_str()).unwrap()).unwrap()
    }

    pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(&mut self, map: MapName) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(map.as_str()).unwrap()).unwrap()
    }
}

/// By which address a pod that calls itself seems to be called.
pub(crate) fn hairpin_address(v4: bool) -> IpAddr {
    if v4 { Hairpin::DEFAULT.v4.into() } else { Hairpin::DEFAULT.v6.into() }
}

fn load(
    sizes: &MapSizes,
    flows_per_interface: u32,
    ticks_per_second: u32,
    redirect: bool,
) -> (Ebpf, ProgramArray<MapData>) {
    let mut loader = EbpfLoader::new();
    let redirect = u32::from(redirect);
    let [hairpin_v4, hairpin_v6] = Hairpin::DEFAULT.addresses();
    loader
        .override_global("AYA_LOG_LEVEL", &0_u8, true)
        .override_global("HAIRPIN_V4", &hairpin_v4, true)
        .override_global("HAIRPIN_V6", &hairpin_v6, true)
        .override_global("FLOWS_PER_INTERFACE", &flows_per_interface, true)
        .override_global("TICKS_PER_SECOND", &ticks_per_second, true)
        .override_global("REDIRECT", &redirect, true);
    for map in MapName::ALL {
        loader.map_max_entries(map.as_str(), sizes.of(map));
    }
    let mut ebpf = loader.load(mcs_proxy::EBPF_OBJECT).expect("the maps");
    let stages = Stage::ALL.map(Stage::as_str);
    for name in ["from_pod", "to_pod", "clock", "empty"].into_iter().chain(stages) {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        patiently(|| program.load()).unwrap_or_else(|error| panic!("{name}: {error:#?}"));
    }
    let stages = enter_stages(&mut ebpf).expect("the stages");
    (ebpf, stages)
}

/// The verifier is harder on a program whose loader lacks PERFMON and kinder to plain root's, and it masks indices
/// for the former: so load with exactly what a pod is given.
fn with_three_capabilities<T>(load: impl FnOnce() -> T) -> T {
    let three = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    let before = caps::read(None, CapSet::Effective).unwrap();
    caps::set(None, CapSet::Effective, &three.into_iter().collect()).expect("CAP_BPF, NET_ADMIN and PERFMON");
    let loaded = load();
    caps::set(None, CapSet::Effective, &before).unwrap();
    loaded
}

fn port(address: SocketAddr) -> abi::Port {
    abi::Port::new(address.port())
}

/// Size of `struct __sk_buff`, and where `ifindex` is in it (include/uapi/linux/bpf.h).
const SK_BUFF: usize = 192;
const SK_BUFF_IFINDEX: usize = 40;

fn test_run(program: &SchedClassifier, packet: &[u8], interface: u32) -> (i32, Vec<u8>) {
    let mut context = [0; SK_BUFF];
    context[SK_BUFF_IFINDEX..SK_BUFF_IFINDEX + 4].copy_from_slice(&interface.to_ne_bytes());
    let mut out = vec![0; packet.len() + 256];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
        .unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value.cast_signed(), out)
}
