//! `mcs-proxy monitor`: what the programs tell, as it happens.

use super::{
    filter::{Flow, Names},
    output::{one_of_many, print},
    stats::dash,
};
use crate::{
    config::{Monitor, Output, Places, Told},
    dataplane::{pins::PinDir, ring::Listener, sys},
    desired::FrontendKey,
    observe::{
        catalog::protocol_name,
        verdict_names::{event_name, verdict_name, verdict_reason},
    },
};
use k8s_openapi::jiff::Timestamp;
use mcs_proxy_ebpf::abi::{Address, Event, EventKind, FlowState, Port, Protocol, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

/// How late an event may be shown.
const LOOK: Duration = Duration::from_millis(20);
const RENEW: Duration = Duration::from_secs(1);
/// How often names are read at most.
const REREAD: Duration = Duration::from_millis(100);

/// A line of `mcs-proxy monitor -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Line {
    Event(Box<EventRow>),
    Lost(LostRow),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct EventRow {
    /// RFC 3339, with microseconds, in UTC.
    time: String,
    /// `new` (a flow begins), `reply` (its first answer), `closed` (both sides have sent a FIN, or one a RST), `rejected`,
    /// `dropped` or `passed` (to what is beneath us).
    event: &'static str,
    /// The programs' word for it: of what is rejected, dropped or passed, the reason.
    verdict: &'static str,
    /// `TCP`, `UDP` or `SCTP`.
    protocol: String,
    /// Absent for sockets that connect: they have no address yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_port: Option<u16>,
    /// Absent for what is dropped because a pod called a backend directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    vip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vip_port: Option<u16>,
    /// Absent if none was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_port: Option<u16>,
    /// The cluster whose pod the backend is; empty if unknown.
    cluster: String,
    /// `NAMESPACE/NAME`; empty if unknown.
    service: String,
    /// Of `closed`: whether a RST ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<bool>,
    /// Index of the client's interface in the node's network namespace; absent for sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u32>,
    /// The kernel's number of the socket that called, as `ss -e` shows it; absent for packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
}

/// More came than there was room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LostRow {
    /// So many events are not shown, whatever they were.
    lost: u64,
}

/// Prints events until interrupted, or as many as were asked for.
///
/// # Errors
/// Nothing is pinned, or what is pinned cannot be read.
pub fn monitor(places: &Places, asked: &Monitor) -> anyhow::Result<()> {
    let mut kinds: Vec<EventKind> = EventKind::ALL.to_vec();
    if !asked.verdict.is_empty() {
        kinds.retain(|&kind| asked.verdict.iter().any(|told| told.kind() == kind));
    }
    let mut listener = Listener::open(&PinDir::new(&places.pin_dir), kinds)?;
    let mut names = Names::read(places);
    eprintln!("Listening; Ctrl-C ends it.");
    let offset = boot_time_offset();
    let (mut renewed, mut read, mut shown) = (Instant::now(), Instant::now(), 0);
    loop {
        if renewed.elapsed() >= RENEW {
            listener.renew()?;
            names.refresh(places);
            (renewed, read) = (Instant::now(), Instant::now());
        }
        let mut events = Vec::new();
        let lost = listener.poll(|event| events.push(*event));
        if lost > 0 && say(&Line::Lost(LostRow { lost }), asked.output)?.is_break() {
            return Ok(());
        }
        // A Service that is new has its name in a file that was not read yet.
        if events.iter().any(|event| names.lack(event)) && read.elapsed() >= REREAD {
            names.refresh(places);
            read = Instant::now();
        }
        for event in &events {
            let Some(row) = row(event, asked, &names, offset) else { continue };
            if say(&Line::Event(Box::new(row)), asked.output)?.is_break() {
                return Ok(());
            }
            shown += 1;
            if asked.count.is_some_and(|count| shown >= count) {
                return Ok(());
            }
        }
        thread::sleep(LOOK);
    }
}

fn say(line: &Line, output: Output) -> anyhow::Result<ControlFlow<()>> {
    print(&one_of_many(line, output, text)?)
}

/// `None`: it was not asked for.
fn row(event: &Event, asked: &Monitor, names: &Names, offset: i64) -> Option<EventRow> {
    let kind = EventKind::from_number(event.kind)?;
    let verdict = *Verdict::ALL.get(usize::from(event.verdict))?;
    let is_told = |told: &Told| match *told {
        Told::Kind(wanted) => wanted == kind,
        Told::Verdict(_, wanted) => wanted == verdict,
    };
    if !asked.verdict.is_empty() && !asked.verdict.iter().any(is_told) {
        return None;
    }
    let end = |address: Address, port: Port| {
        let address = SocketAddr::new(address.to_ip(), port.get());
        (!address.ip().is_unspecified()).then_some(address)
    };
    let client = end(event.client, event.client_port);
    let vip = end(event.vip, event.vip_port);
    let backend = end(event.backend, event.backend_port);
    let protocol = Protocol::from_number(event.protocol);
    let frontend =
        vip.zip(protocol).map(|(vip, protocol)| FrontendKey { vip: vip.ip(), port: vip.port(), protocol });
    let (service, cluster) = names.of(frontend, backend);
    if !asked.filter.has(&Flow { client, backend, protocol, service: &service, cluster: &cluster }) {
        return None;
    }
    Some(EventRow {
        time: time(event.time, offset),
        event: event_name(kind),
        verdict: verdict_name(verdict),
        protocol: protocol.map_or_else(|| event.protocol.to_string(), |known| protocol_name(known).into()),
        client: client.map(|client| client.ip()),
        client_port: client.map(|client| client.port()),
        vip: vip.map(|vip| vip.ip()),
        vip_port: vip.map(|vip| vip.port()),
        backend: backend.map(|backend| backend.ip()),
        backend_port: backend.map(|backend| backend.port()),
        cluster,
        service,
        reset: (kind == EventKind::Closed).then(|| event.state.has(FlowState::RESET)),
        interface: (event.interface != 0).then_some(event.interface),
        socket: (event.cookie != 0).then(|| format!("{:x}", event.cookie)),
    })
}

fn text(line: &Line) -> String {
    let row = match line {
        Line::Event(row) => row,
        Line::Lost(LostRow { lost }) => {
            return format!("{lost} events lost: they came faster than they could be read; see --verdict\n");
        }
    };
    let end = |address: Option<IpAddr>, port: Option<u16>| {
        address.zip(port).map(|(address, port)| SocketAddr::new(address, port).to_string())
    };
    let client = end(row.client, row.client_port)
        .or_else(|| row.socket.as_ref().map(|socket| format!("socket {socket}")))
        .unwrap_or_else(|| "-".into());
    let way: Vec<String> = [Some(client), end(row.vip, row.vip_port), end(row.backend, row.backend_port)]
        .into_iter()
        .flatten()
        .collect();
    let reason = Verdict::ALL
        .into_iter()
        .find(|&verdict| verdict_name(verdict) == row.verdict)
        .map_or("", verdict_reason);
    let more = match (row.reset, reason) {
        (Some(true), _) => "  by a RST".to_owned(),
        (Some(false) | None, "") => String::new(),
        (Some(false) | None, reason) => format!("  {}: {reason}", row.verdict),
    };
    format!(
        "{}  {:<8}  {:<4}  {}  {}  {}{more}\n",
        row.time,
        row.event,
        row.protocol,
        way.join(" -> "),
        dash(&row.service),
        dash(&row.cluster),
    )
}

/// Nanoseconds between the epoch and the boot.
fn boot_time_offset() -> i64 {
    let uptime = sys::boot_time().unwrap_or_default();
    let now = Timestamp::now().as_nanosecond();
    i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(i64::try_from(uptime.as_nanos()).unwrap_or(0))
}

fn time(since_boot: u64, offset: i64) -> String {
    let nanoseconds = i64::try_from(since_boot).unwrap_or(0).saturating_add(offset);
    Timestamp::from_nanosecond(nanoseconds.into())
        .map_or_else(|_| since_boot.to_string(), |time| format!("{time:.6}"))
}
