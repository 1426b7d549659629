//! What the pinned maps hold, put together with the names that belong to it.

use crate::{
    config::Places,
    dataplane::{
        flows::Clock,
        pins::{DumpedFrontend, PinDir, Pins},
    },
    desired::FrontendKey,
    observe::{
        catalog::{Catalog, CatalogFrontend, protocol_name},
        health::{self, Unanswered},
        interfaces::{self, SilentInterface},
    },
};
use mcs_proxy_ebpf::abi::{
    Algorithm, BackendCounters, Flow, FlowState, Liveness, Protocol, ServiceCounters, Tuple,
};
use std::{collections::BTreeMap, net::SocketAddr};

pub(super) struct View {
    /// By VIP, port and protocol.
    pub(super) frontends: Vec<Frontend>,
    pub(super) flows: Vec<FlowView>,
    /// Empty if no daemon has looked.
    pub(super) silent: Vec<SilentInterface>,
    /// The same.
    pub(super) unanswered: Vec<Unanswered>,
    catalog: Catalog,
}

pub(super) struct Frontend {
    pub(super) key: FrontendKey,
    pub(super) algorithm: &'static str,
    pub(super) packets_only: bool,
    pub(super) counters: ServiceCounters,
    /// One for each backend in the slots, in the order of their first slots; with Maglev, of their addresses.
    pub(super) backends: Vec<Backend>,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) id: u32,
    pub(super) generation: u32,
    pub(super) state: &'static str,
    pub(super) slots: u32,
    pub(super) active: u32,
    pub(super) inactive: u32,
    pub(super) counters: BackendCounters,
}

pub(super) struct FlowView {
    pub(super) protocol: String,
    pub(super) state: &'static str,
    pub(super) client: SocketAddr,
    pub(super) vip: SocketAddr,
    pub(super) backend: SocketAddr,
    pub(super) interface: u32,
    pub(super) idle_seconds: u64,
    /// One end, or both, have said that they are done.
    pub(super) is_closing: bool,
    number: u8,
}

/// Flows of one backend.
#[derive(Clone, Copy, Default)]
struct Load {
    active: u32,
    inactive: u32,
}

impl View {
    /// All of it.
    pub(super) fn read(places: &Places) -> anyhow::Result<Self> {
        Self::look(places, true)
    }

    /// Without the flows, whose number may be large: of no backend it is known how many it has.
    pub(super) fn read_counters(places: &Places) -> anyhow::Result<Self> {
        Self::look(places, false)
    }

    fn look(places: &Places, with_flows: bool) -> anyhow::Result<Self> {
        let dir = PinDir::new(&places.pin_dir);
        let pins = Pins::open(&dir)?;
        let clock = Clock::open(&dir)?;
        let now = clock.now()?;
        let mut loads: BTreeMap<(u32, u32), Load> = BTreeMap::new();
        let mut flows = Vec::new();
        let mut note = |tuple: &Tuple, flow: &Flow| {
            let load = loads.entry((flow.backend_id, flow.generation)).or_default();
            if is_closing(flow.state) {
                load.inactive += 1;
            } else {
                load.active += 1;
            }
            flows.push(flow_view(tuple, flow, clock.rate().age(now, flow.last_seen).as_secs()));
        };
        if with_flows {
            pins.for_each_flow(&mut note)?;
        }
        let frontends = pins
            .frontends()?
            .frontends
            .iter()
            .map(|dumped| frontend(&pins, dumped, &loads))
            .collect::<Result<_, _>>()?;
        let run_dir = places.run_dir();
        // The maps are the truth: without names there is less to say of them, not nothing.
        let catalog = Catalog::read(&run_dir).unwrap_or_else(|failure| {
            eprintln!(
                "mcs-proxy: the names in {} cannot be read: {failure}; Services and clusters are not named",
                run_dir.display()
            );
            Catalog::default()
        });
        let silent = interfaces::read(&run_dir).unwrap_or_else(|failure| {
            eprintln!("mcs-proxy: what is known of interfaces cannot be read: {failure}");
            Vec::new()
        });
        let unanswered = health::read(&run_dir).unwrap_or_else(|failure| {
            eprintln!("mcs-proxy: what is known of clusters that do not answer cannot be read: {failure}");
            Vec::new()
        });
        Ok(Self { frontends, flows, silent, unanswered, catalog })
    }

    /// What the daemon called the frontends.
    pub(super) fn names(&self) -> BTreeMap<FrontendKey, &CatalogFrontend> {
        self.catalog.frontends.iter().filter_map(|names| Some((names.key()?, names))).collect()
    }
}

fn frontend(
    pins: &Pins,
    dumped: &DumpedFrontend,
    loads: &BTreeMap<(u32, u32), Load>,
) -> anyhow::Result<Frontend> {
    // Before the backends': what is counted between the two looks then seems to be of no backend that is not there.
    let counters = pins.service_counters(dumped.header.service)?;
    let mut backends: Vec<Backend> = Vec::new();
    for slot in &dumped.slots {
        if let Some(known) = backends.iter_mut().find(|backend| backend.id == slot.backend) {
            known.slots += 1;
            continue;
        }
        let state = pins.backend_state(slot.backend);
        let load = loads.get(&(slot.backend, state.generation())).copied().unwrap_or_default();
        backends.push(Backend {
            address: SocketAddr::new(slot.address.to_ip(), slot.port.get()),
            id: slot.backend,
            generation: state.generation(),
            state: match state.liveness() {
                Liveness::Live => "live",
                Liveness::Serving => "serving",
                Liveness::Gone => "gone",
            },
            slots: 1,
            active: load.active,
            inactive: load.inactive,
            counters: pins.backend_counters(slot.backend)?,
        });
    }
    if dumped.header.algorithm == Algorithm::Maglev {
        // The first entries of its table are in no order that says anything.
        backends.sort_by_key(|backend| backend.address);
    }
    Ok(Frontend {
        key: dumped.key,
        algorithm: match dumped.header.algorithm {
            Algorithm::RoundRobin => "round-robin",
            Algorithm::Random => "random",
            Algorithm::Maglev => "maglev",
        },
        packets_only: dumped.header.packets_only,
        counters,
        backends,
    })
}

fn flow_view(tuple: &Tuple, flow: &Flow, idle_seconds: u64) -> FlowView {
    FlowView {
        protocol: Protocol::from_number(tuple.protocol)
            .map_or_else(|| tuple.protocol.to_string(), |protocol| protocol_name(protocol).to_owned()),
        state: state_name(tuple.protocol, flow.state),
        client: SocketAddr::new(tuple.client.to_ip(), tuple.client_port.get()),
        vip: SocketAddr::new(tuple.peer.to_ip(), tuple.peer_port.get()),
        backend: SocketAddr::new(flow.backend.to_ip(), flow.backend_port.get()),
        interface: flow.interface,
        idle_seconds,
        is_closing: is_closing(flow.state),
        number: tuple.protocol,
    }
}

const fn is_closing(state: FlowState) -> bool {
    state.is_closed() || state.is_half_closed()
}

/// As ipvsadm and conntrack call them.
const fn state_name(protocol: u8, state: FlowState) -> &'static str {
    let is_tcp = protocol == Protocol::Tcp.number();
    if state.has(FlowState::RESET) {
        "closed"
    } else if state.is_closed() {
        "time-wait"
    } else if state.is_half_closed() {
        "half-closed"
    } else if state.has(FlowState::ESTABLISHED) {
        "established"
    } else if state.has(FlowState::ANSWERED) {
        if is_tcp { "syn-received" } else { "answered" }
    } else if is_tcp {
        "syn-sent"
    } else {
        "unanswered"
    }
}

impl FlowView {
    /// The frontend that the client called.
    pub(super) fn frontend(&self) -> Option<FrontendKey> {
        let protocol = Protocol::from_number(self.number)?;
        Some(FrontendKey { vip: self.vip.ip(), port: self.vip.port(), protocol })
    }
}
