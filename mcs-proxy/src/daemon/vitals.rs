//! What the daemon lets others see of itself, noted once a second and at every change.

use super::Daemon;
use super::{
    drift,
    socket::{Onlooker, Response},
    writer::Summary,
};
use crate::{
    dataplane::{
        flows::Collected,
        loader::{Options, size_flag},
        table::{Fill, Usage},
    },
    model::Mode,
    observe::health::FamilyName,
    observe::outages::OutageFacts,
    observe::status::{Identity, status},
    observe::vitals::{FlowFacts, InterfaceFacts, LastCommit, MapFill, SocketFacts, SourceFacts},
    source::{Event, Told},
};
use mcs_proxy_ebpf::abi::MapName;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the task turns, and how often what changes slowly is noted.
pub(super) const PULSE: Duration = Duration::from_secs(1);

/// Longer than the first grace period takes, unless changes follow one another without end.
const SETTLING: Duration = Duration::from_secs(60);

/// For so long a comparison is told if the maps change too fast for another.
const RECENT: Duration = Duration::from_secs(300);

impl Daemon {
    /// What answers `mcs-proxy status`, without us.
    pub(super) fn onlooker(&self) -> Onlooker {
        let (vitals, pin_dir) = (self.vitals.clone(), self.pin_dir.clone());
        let identity = Identity { cluster: self.run.cluster_name.clone(), node: self.run.node_name() };
        Arc::new(move || {
            let drift = drift::compare(&vitals, &pin_dir);
            let facts = vitals.facts();
            let drift = drift.or_else(|| {
                Some(facts.drift.as_ref().filter(|(when, _)| when.elapsed() < RECENT)?.1.clone())
            });
            let troubles = vitals.reach().troubles();
            let status = status(&identity, &facts, &troubles, vitals.since_turn(), vitals.uptime(), drift);
            Response::Status(Box::new(status))
        })
    }

    /// At every turn of the task.
    pub(super) fn note_turn(&mut self) {
        self.vitals.turn();
        let now = Instant::now();
        if self.noted.is_none_or(|noted| now.duration_since(noted) >= PULSE) {
            self.noted = Some(now);
            self.note_all();
        }
    }

    fn note_all(&mut self) {
        let table = self.writer.table();
        // What was found at the start and is free counts as used until a grace period is over.
        let is_settled = !table.wants_reclaim() || self.vitals.uptime() > SETTLING;
        let tables = table_fills(&table.usage());
        let writer = self.writer.facts();
        let interfaces = InterfaceFacts {
            hook: self.links.hook().to_string(),
            attached: self.links.attached().len(),
            refused: self.unattached.clone(),
            silent: self.neighbours.silent(),
        };
        let outages = OutageFacts {
            diverted: self.health.unanswered().to_vec(),
            kept: self
                .writer
                .kept()
                .map(|(cluster, family)| (cluster.to_string(), FamilyName::from(*family)))
                .collect(),
        };
        let sockets = match self.writer.modes().mode() {
            Mode::Bypass => SocketFacts::Off,
            Mode::Active | Mode::Drain => self.sockets.clone(),
        };
        self.vitals.note(|facts| {
            facts.awaited = writer.awaited;
            facts.modes = Some(writer.modes);
            facts.problems = writer.problems;
            facts.first_problems = writer.first_problems;
            facts.misnamed = writer.misnamed;
            facts.rejected = writer.rejected;
            if is_settled || !facts.tables.is_empty() {
                facts.tables = tables;
            }
            facts.interfaces = interfaces;
            facts.outages = outages;
            facts.sockets = sockets;
            facts.catalog_failure = self.names.failure().map(str::to_owned);
        });
    }

    /// Events have come in, of which the maps are to know.
    pub(super) fn note_event(&mut self, told: &Told) {
        let kind = match &told.event {
            Event::Applied(object) => object.kind(),
            Event::Deleted(kind, _) | Event::Replaced(kind, _) => *kind,
            Event::Problem(problem) => problem.object.kind,
            Event::Mended(object) => object.kind,
        };
        self.under_way.push(told.decoded);
        self.vitals.note(|facts| {
            let source = facts.sources.entry(kind).or_insert(SourceFacts { events: 0, last: told.decoded });
            source.events += 1;
            source.last = source.last.max(told.decoded);
        });
    }

    /// There was nothing to do.
    pub(super) fn note_idle(&mut self) {
        self.under_way.clear();
        if self.writer.has_heard_all() && !self.writer.needs_retry() {
            self.note_sync(None);
        }
    }

    /// The maps follow all that was told.
    pub(super) fn note_commit(&mut self, summary: Summary, begun: Instant) {
        let Summary { first, changed, backends_went: _, frontends, backends } = summary;
        let now = Instant::now();
        let under_way = std::mem::take(&mut self.under_way);
        // What comes before the first sync waits for other kinds, not for us.
        if !first {
            under_way.iter().for_each(|decoded| self.vitals.note_latency(now.duration_since(*decoded)));
        }
        if first {
            // Who waits for it sees at once that it is so.
            self.noted = None;
        }
        let took = now.duration_since(begun);
        self.note_sync(Some(LastCommit { when: now, took, changed, frontends, backends }));
    }

    fn note_sync(&self, commit: Option<LastCommit>) {
        let now = Instant::now();
        self.vitals.note(|facts| {
            facts.failing_since = None;
            facts.last_sync = Some(now);
            facts.synced.get_or_insert(now);
            if commit.is_some() {
                facts.commits += 1;
                facts.last_commit = commit;
            }
        });
    }

    /// The kernel refused a change, which will be tried again.
    pub(super) fn note_failure(&self) {
        let now = Instant::now();
        self.vitals.note(|facts| {
            facts.failures += 1;
            facts.failing_since.get_or_insert(now);
        });
    }

    pub(super) fn note_flows(&self, collected: &Collected, limits: &Options) {
        let fill = |map: MapName, in_use: u64, capacity: u32| MapFill {
            map: map.as_str(),
            in_use,
            capacity: capacity.into(),
            flag: size_flag(map).unwrap_or_default(),
        };
        let share = |in_use| MapFill {
            flag: "--max-flows-per-interface",
            ..fill(MapName::Flows, in_use, limits.flows_per_interface)
        };
        let busiest = collected.by_interface.iter().max_by_key(|(_, flows)| **flows);
        let flows = FlowFacts {
            when: Instant::now(),
            established: fill(MapName::Flows, collected.established as u64, limits.sizes.flows),
            transient: fill(MapName::Transient, collected.transient as u64, limits.sizes.transient),
            busiest: busiest.map(|(&index, &flows)| (index, share(flows))),
        };
        self.vitals.note(|facts| facts.flows = Some(flows));
    }
}

fn table_fills(usage: &Usage) -> Vec<MapFill> {
    let fill = |map: MapName, Fill { in_use, capacity }: Fill| MapFill {
        map: map.as_str(),
        in_use: in_use.into(),
        capacity: capacity.into(),
        flag: size_flag(map).unwrap_or_default(),
    };
    vec![
        fill(MapName::Services, usage.frontends),
        fill(MapName::Backends, usage.elements),
        fill(MapName::BackendState, usage.backends),
    ]
}
