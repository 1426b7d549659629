//! What the commands that look at flows and counters are asked.

use super::{Output, service_name};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use mcs_proxy_ebpf::abi::{EventKind, Protocol, Verdict};
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use crate::observe::verdict_names::{event_name, verdict_name};

/// `mcs-proxy services`.
#[derive(Clone, Debug, Args)]
pub struct Services {
    #[command(flatten)]
    pub list: super::List,
    /// Go on: draw the table anew when it changes; with -o json or yaml, one object for each Service that is added,
    /// changed or gone
    #[arg(short, long)]
    pub watch: bool,
    /// With --watch: how often to look
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: humantime::Duration,
}

/// Which flows. What is not said does not matter.
#[derive(Clone, Debug, Default, Args)]
pub struct FlowFilter {
    /// Only this Service: NAMESPACE/NAME
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    pub service: Option<String>,
    /// Only this client: IP, IP:PORT or CIDR
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<Ends>,
    /// Only this backend: IP, IP:PORT or CIDR
    #[arg(long, value_name = "ADDRESS")]
    pub backend: Option<Ends>,
    /// Only backends of this cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Only this protocol
    #[arg(long, value_enum, ignore_case = true)]
    pub protocol: Option<ProtocolName>,
}

/// `mcs-proxy connections`.
#[derive(Clone, Debug, Args)]
pub struct Connections {
    #[command(flatten)]
    pub filter: FlowFilter,
    /// Only these states, separated by commas
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = STATES)]
    pub state: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// How far a flow has come, as `connections` calls it.
pub const STATES: [&str; 8] = [
    "syn-sent",
    "syn-received",
    "unanswered",
    "answered",
    "established",
    "half-closed",
    "time-wait",
    "closed",
];

/// `mcs-proxy stats`.
#[derive(Clone, Debug, Args)]
pub struct Stats {
    /// Only this Service: NAMESPACE/NAME
    #[arg(value_name = "SERVICE", value_parser = service_name)]
    pub service: Option<String>,
    /// What happens in a second, not what has happened so far
    #[arg(long)]
    pub rate: bool,
    /// Between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: humantime::Duration,
    /// How often to print; 0: until interrupted. With -o json each time is one line
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// `mcs-proxy top`.
#[derive(Clone, Debug, Args)]
pub struct Top {
    /// Between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: humantime::Duration,
}

/// `mcs-proxy monitor`.
#[derive(Clone, Debug, Args)]
pub struct Monitor {
    #[command(flatten)]
    pub filter: FlowFilter,
    /// Only these, separated by commas: kinds of events (new, reply, closed, rejected, dropped, passed), or the programs'
    /// verdicts (such as unknown-connection)
    #[arg(long, value_name = "VERDICT", value_delimiter = ',', value_parser = told)]
    pub verdict: Vec<Told>,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Output format; with json, one object a line
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
}

/// A kind of events, or one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Kind(EventKind),
    Verdict(EventKind, Verdict),
}

impl Told {
    #[must_use]
    pub const fn kind(self) -> EventKind {
        match self {
            Self::Kind(kind) | Self::Verdict(kind, _) => kind,
        }
    }
}

fn told(text: &str) -> Result<Told, String> {
    if let Some(kind) = EventKind::ALL.into_iter().find(|&kind| event_name(kind) == text) {
        return Ok(Told::Kind(kind));
    }
    let named = |(_, verdict): &(EventKind, Verdict)| verdict_name(*verdict) == text;
    told_verdicts().find(named).map(|(kind, verdict)| Told::Verdict(kind, verdict)).ok_or_else(|| {
        let verdicts: Vec<&str> = told_verdicts().map(|(_, verdict)| verdict_name(verdict)).collect();
        let kinds = EventKind::ALL.map(event_name).join(", ");
        format!("neither a kind of events ({kinds}) nor a verdict that is told ({})", verdicts.join(", "))
    })
}

/// Verdicts by which an event may be told from others of its kind.
fn told_verdicts() -> impl Iterator<Item = (EventKind, Verdict)> {
    Verdict::ALL.into_iter().filter_map(|verdict| match EventKind::of_opening(verdict) {
        Some(kind @ (EventKind::Rejected | EventKind::Dropped | EventKind::Passed)) => Some((kind, verdict)),
        Some(EventKind::New | EventKind::Reply | EventKind::Closed) | None => None,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolName {
    Tcp,
    Udp,
    Sctp,
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Tcp => Self::Tcp,
            ProtocolName::Udp => Self::Udp,
            ProtocolName::Sctp => Self::Sctp,
        }
    }
}

/// Addresses, and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    range: IpNet,
    port: Option<u16>,
}

impl Ends {
    #[must_use]
    pub fn has(&self, address: SocketAddr) -> bool {
        self.range.contains(&address.ip()) && self.port.is_none_or(|port| port == address.port())
    }
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(range) = text.parse() {
            return Ok(Self { range, port: None });
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { range: ip.into(), port: None });
        }
        text.parse::<SocketAddr>()
            .map(|address| Self { range: address.ip().into(), port: Some(address.port()) })
            .map_err(|_| format!("`{text}` is none of IP, IP:PORT ([fd00::9]:80) and CIDR (10.12.0.0/16)"))
    }
}

/// A tenth of a second takes one CPU a hundredth of its time with a thousand Services.
fn interval(text: &str) -> Result<humantime::Duration, String> {
    let interval: humantime::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("less than a tenth of a second, or more than an hour".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_address_a_port_of_it_or_a_range() {
        for (text, within, without) in [
            ("10.12.0.9", "10.12.0.9:40000", "10.12.0.8:40000"),
            ("10.12.0.9:40000", "10.12.0.9:40000", "10.12.0.9:40001"),
            ("10.12.0.0/16", "10.12.0.9:40000", "10.13.0.9:40000"),
            ("fd00::9", "[fd00::9]:1", "[fd00::8]:1"),
            ("[fd00::9]:80", "[fd00::9]:80", "[fd00::9]:81"),
            ("fd00::/64", "[fd00::9]:80", "10.12.0.9:80"),
        ] {
            let ends: Ends = text.parse().unwrap();
            let has = |address: &str| ends.has(address.parse().unwrap());
            assert_eq!((has(within), has(without)), (true, false), "{text}");
        }
        for text in ["", "serve", "10.12.0", "10.12.0.9/33", "fd00::9:x"] {
            assert!(text.parse::<Ends>().unwrap_err().contains("IP:PORT"), "{text}");
        }
    }

    #[test]
    fn events_are_asked_for_by_kind_or_by_verdict() {
        assert_eq!(told("closed"), Ok(Told::Kind(EventKind::Closed)));
        assert_eq!(told("rejected"), Ok(Told::Kind(EventKind::Rejected)), "a kind and a verdict of it");
        let passed = Told::Verdict(EventKind::Passed, Verdict::UnknownConnection);
        assert_eq!(told("unknown-connection"), Ok(passed));
        let refused = Told::Verdict(EventKind::Rejected, Verdict::ConnectRefused);
        assert_eq!(told("connect-refused"), Ok(refused));
        for text in ["forwarded", "not-ours", "x", ""] {
            assert!(told(text).unwrap_err().contains("no-service"), "{text}");
        }
    }
}
