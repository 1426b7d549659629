//! What `mcs-proxy status` says: a pure function of what the daemon noted. The types are the JSON and YAML of the
//! command, a contract to which fields are only added.

use super::{
    drift::Drift,
    line::Line,
    outages::OutageStatus,
    vitals::{Facts, LONGEST_FAILURE, LONGEST_TURN, MapFill, SocketFacts},
};
use crate::{
    model::{Mode, ObjectKind, Problem},
    source::{KINDS, Troubles},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Maps that are that full are warned of, in percent.
const HIGH: u64 = 90;

/// All of `mcs-proxy status -o json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// `daemon`, or `pins` if none answers.
    pub told_by: String,
    pub cluster: String,
    pub node: String,
    /// Of the daemon.
    pub version: String,
    pub uptime_seconds: u64,
    /// Each part and how it is.
    pub lines: Vec<Line>,
    /// By kind of object.
    pub sources: Vec<SourceStatus>,
    /// What does not answer.
    pub outages: Vec<OutageStatus>,
    pub maps: Vec<MapStatus>,
    /// The last change of the maps.
    pub last_transaction: Option<TransactionStatus>,
    /// How the maps compare with what should be in them; absent if they changed all the time.
    pub drift: Option<Drift>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceStatus {
    /// `Service`, `EndpointSlice`, `ServiceImport`, `Node`, `ConfigMap`, or `File`.
    pub kind: String,
    pub events: u64,
    /// Age of the last one; absent if there was none.
    pub last_event_seconds: Option<u64>,
    /// Whether a complete list has come.
    pub synced: bool,
    /// What is wrong now.
    pub trouble: Option<String>,
    /// For how long something has been.
    pub trouble_seconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MapStatus {
    pub map: String,
    pub in_use: u64,
    pub capacity: u64,
    /// The flag of `run` that raises it.
    pub flag: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TransactionStatus {
    pub age_seconds: u64,
    pub took_seconds: f64,
    /// Frontends entered, changed or taken out.
    pub changed: usize,
    /// Frontends in the maps after it, and slots of all of them.
    pub frontends: usize,
    pub slots: usize,
}

/// Whose status it is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster: String,
    pub node: String,
}

/// Puts together what is known. `drift`: as of now.
#[must_use]
pub fn status(
    identity: &Identity,
    facts: &Facts,
    troubles: &Troubles,
    since_turn: Duration,
    uptime: Duration,
    drift: Option<Drift>,
) -> Status {
    let drift_line = drift_line(drift.as_ref());
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![
        daemon(since_turn, uptime, version),
        source(facts, troubles, uptime),
        mode(facts),
        transactions(facts),
        drift_line,
        room(facts),
        flows(facts),
    ];
    lines.extend(interfaces(facts));
    lines.push(sockets(facts));
    lines.extend(facts.outages.lines());
    lines.extend([cluster_name(facts, identity), objects(facts)]);
    lines.extend(problems(facts));
    lines.extend(catalog(facts));
    Status {
        told_by: "daemon".into(),
        cluster: identity.cluster.clone(),
        node: identity.node.clone(),
        version: version.into(),
        uptime_seconds: uptime.as_secs(),
        lines,
        sources: sources(facts, troubles),
        outages: facts.outages.told(),
        maps: fills(facts).map(map_status).collect(),
        last_transaction: facts.last_commit.map(|last| TransactionStatus {
            age_seconds: last.when.elapsed().as_secs(),
            took_seconds: last.took.as_secs_f64(),
            changed: last.changed,
            frontends: last.frontends,
            slots: last.backends,
        }),
        drift,
    }
}

fn daemon(since_turn: Duration, uptime: Duration, version: &str) -> Line {
    if since_turn > LONGEST_TURN {
        return Line::failed(
            "daemon",
            format!("the task that writes the maps has not turned for {}", age(since_turn)),
            "restart the daemon: what is pinned goes on forwarding meanwhile",
        );
    }
    Line::ok("daemon", format!("version {version}, up for {}", age(uptime)))
}

fn source(facts: &Facts, troubles: &Troubles, uptime: Duration) -> Line {
    let waiting = format!("not in step since the daemon started {} ago", age(uptime));
    if let Some((kind, trouble)) = troubles.iter().next() {
        let more = match troubles.len() {
            1 => String::new(),
            all => format!(" (and {} more kinds)", all - 1),
        };
        let since = troubles.values().map(|trouble| trouble.since).min().unwrap_or(trouble.since);
        let says = format!("{kind}s{more}, for {}: {}", age(since.elapsed()), trouble.why);
        if facts.awaited.is_empty() {
            let way_out = "what was last known stays in the maps, and it is tried again by itself";
            return Line::failed("source", says, way_out);
        }
        return Line::failed("source", format!("{waiting}: {says}"), UNTIL_LISTED);
    }
    if facts.awaited.is_empty() {
        let last = facts.sources.values().map(|source| source.last.elapsed()).min();
        let last =
            last.map_or_else(|| "no event yet".to_owned(), |last| format!("last event {} ago", age(last)));
        return Line::ok("source", format!("every kind was listed, {last}"));
    }
    let kinds: Vec<_> = facts.awaited.iter().map(ToString::to_string).collect();
    Line::warning("source", format!("{waiting}: no complete list yet of {}", kinds.join(", ")), UNTIL_LISTED)
}

/// What an earlier daemon has left in the maps is as good as on the day it ended.
const UNTIL_LISTED: &str = "until every kind is listed, what the maps hold from before is served and nothing of it is swept; if \
                            it lasts, see whether the API server answers";

fn mode(facts: &Facts) -> Line {
    let Some(modes) = facts.modes else { return Line::ok("mode", "not known yet") };
    match modes.mode() {
        Mode::Active => Line::ok("mode", modes.to_string()),
        Mode::Drain | Mode::Bypass => Line::warning(
            "mode",
            modes.to_string(),
            "set `mode: active` in the settings, or `mcs-proxy mode auto` on this node, to serve again",
        ),
    }
}

fn transactions(facts: &Facts) -> Line {
    if let Some(since) = facts.failing_since.map(|since| since.elapsed()) {
        let says = format!("the kernel has refused changes of the maps for {}", age(since));
        let way_out =
            "the maps are consistent, and all is tried again; the daemon's log has the map and the error";
        return if since > LONGEST_FAILURE {
            Line::failed("transactions", says, way_out)
        } else {
            Line::warning("transactions", says, way_out)
        };
    }
    Line::ok(
        "transactions",
        facts.last_commit.map_or_else(
            || "none yet".to_owned(),
            |last| {
                format!(
                    "{} carried out, the last {} ago in {:.1} ms; {} frontends, {} slots",
                    facts.commits,
                    age(last.when.elapsed()),
                    last.took.as_secs_f64() * 1000.0,
                    last.frontends,
                    last.backends
                )
            },
        ),
    )
}

/// For [`Status::lines`].
#[must_use]
pub fn drift_line(drift: Option<&Drift>) -> Line {
    match drift {
        None => Line::warning(
            "drift",
            "not compared: the maps follow one change after another, or the names are behind",
            "ask again",
        ),
        Some(drift) if drift.is_none() => {
            Line::ok("drift", format!("the maps hold what they should: {} frontends", drift.frontends))
        }
        Some(drift) => Line::failed(
            "drift",
            format!(
                "{} missing, {} different, {} stray, of {} frontends",
                drift.missing, drift.different, drift.stray, drift.frontends
            ),
            "`mcs-proxy explain SERVICE` says what should be there; restarting the daemon compares all of it anew",
        ),
    }
}

fn room(facts: &Facts) -> Line {
    if let Some(first) = facts.rejected.first() {
        return Line::failed(
            "room",
            format!("{} frontends do not fit the maps; the first: {first}", facts.rejected.len()),
            "raise the flag that is named, on every node; what is served stays as it is until then",
        );
    }
    let fullest = fills(facts).filter(|fill| fill.map != "transient").max_by_key(percent);
    let Some(fill) = fullest else { return Line::ok("room", "not known yet") };
    let says = format!(
        "the fullest map is `{}`: {} of {} entries, {} %",
        fill.map,
        fill.in_use,
        fill.capacity,
        percent(&fill)
    );
    if percent(&fill) >= HIGH {
        return Line::warning("room", says, format!("before it is full, raise {}", fill.flag));
    }
    Line::ok("room", says)
}

fn flows(facts: &Facts) -> Line {
    let Some(flows) = facts.flows else { return Line::ok("flows", "not looked through yet") };
    let (established, transient) = (flows.established.in_use, flows.transient.in_use);
    let says = format!("{established} established, {transient} transient, {} ago", age(flows.when.elapsed()));
    match flows.busiest {
        Some((index, fill)) if percent(&fill) >= HIGH => Line::warning(
            "flows",
            format!("{says}; interface {index} has {} of the {} it may have", fill.in_use, fill.capacity),
            format!("see what its pod does; or raise {}", fill.flag),
        ),
        Some(_) | None => Line::ok("flows", says),
    }
}

fn interfaces(facts: &Facts) -> Vec<Line> {
    let interfaces = &facts.interfaces;
    let mut lines: Vec<Line> = interfaces
        .silent
        .iter()
        .map(|silent| {
            Line::warning(
                "interfaces",
                silent.to_string(),
                format!(
                    "see `bpftool net`; --exclude-interface {} leaves the pod to kube-proxy",
                    silent.name
                ),
            )
        })
        .collect();
    if !interfaces.refused.is_empty() {
        let names: Vec<_> = interfaces.refused.values().map(String::as_str).collect();
        lines.push(Line::failed(
            "interfaces",
            format!("these refuse the programs: {}", names.join(", ")),
            "their pods are left to kube-proxy; it is tried again every second, and the log has the error",
        ));
    }
    if lines.is_empty() {
        lines
            .push(Line::ok("interfaces", format!("{} attached by {}", interfaces.attached, interfaces.hook)));
    }
    lines
}

fn sockets(facts: &Facts) -> Line {
    match &facts.sockets {
        SocketFacts::Off => Line::ok("sockets", "not translated, only packets"),
        SocketFacts::Served { whose, cgroup } => {
            let whose = if *whose == "all" { "of all processes" } else { "of the node's own processes" };
            Line::ok("sockets", format!("those {whose} in {cgroup} are translated"))
        }
        SocketFacts::Delayed { why, meanwhile } => Line::warning(
            "sockets",
            format!("{why}; it is tried again, and until then {meanwhile}"),
            "host-network processes that are not served are left to kube-proxy; if it lasts, say --socket-path off",
        ),
        SocketFacts::Failed(why) => Line::warning(
            "sockets",
            format!("not translated: {why}"),
            "host-network processes are left to kube-proxy; mend it and restart, or say --socket-path off",
        ),
    }
}

fn cluster_name(facts: &Facts, identity: &Identity) -> Line {
    match &facts.misnamed {
        None => Line::ok("cluster name", format!("{}, which no importer contradicts", identity.cluster)),
        Some(name) => Line::failed(
            "cluster name",
            format!("--cluster-name is {}, and an importer calls this cluster {name}", identity.cluster),
            "local endpoints may be taken for remote ones and the reverse: see which name is right",
        ),
    }
}

fn objects(facts: &Facts) -> Line {
    match facts.problems {
        0 => Line::ok("objects", "no problems"),
        count => Line::warning(
            "objects",
            format!("{count} problems with Services, slices and settings"),
            "the daemon's log and `kubectl describe` name each; `mcs-proxy explain SERVICE` those of one Service",
        ),
    }
}

fn problems(facts: &Facts) -> impl Iterator<Item = Line> {
    facts.first_problems.iter().map(|Problem { object, field, message, remedy }| {
        Line::warning("problem", format!("{object}: {field}: {message}"), remedy)
    })
}

fn catalog(facts: &Facts) -> Option<Line> {
    let why = facts.catalog_failure.as_ref()?;
    Some(Line::warning(
        "names",
        format!("cannot be written: {why}"),
        "`mcs-proxy services` lacks names or shows old ones; see whether the run directory's disk is full",
    ))
}

fn sources(facts: &Facts, troubles: &Troubles) -> Vec<SourceStatus> {
    KINDS
        .iter()
        .chain([&ObjectKind::File])
        .filter(|kind| {
            **kind != ObjectKind::File || facts.sources.contains_key(kind) || troubles.contains_key(kind)
        })
        .map(|kind| {
            let source = facts.sources.get(kind);
            SourceStatus {
                kind: kind.to_string(),
                events: source.map_or(0, |source| source.events),
                last_event_seconds: source.map(|source| source.last.elapsed().as_secs()),
                synced: !facts.awaited.contains(kind),
                trouble: troubles.get(kind).map(|trouble| trouble.why.clone()),
                trouble_seconds: troubles.get(kind).map(|trouble| trouble.since.elapsed().as_secs()),
            }
        })
        .collect()
}

fn fills(facts: &Facts) -> impl Iterator<Item = MapFill> {
    let flows = facts.flows.into_iter().flat_map(|flows| [flows.established, flows.transient]);
    facts.tables.clone().into_iter().chain(flows)
}

fn map_status(fill: MapFill) -> MapStatus {
    let MapFill { map, in_use, capacity, flag } = fill;
    MapStatus { map: map.to_owned(), in_use, capacity, flag: flag.to_owned() }
}

const fn percent(fill: &MapFill) -> u64 {
    let capacity = if fill.capacity == 0 { 1 } else { fill.capacity };
    fill.in_use * 100 / capacity
}

/// As kubectl shows ages.
#[must_use]
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
