use super::families::{Families, Labels};
use crate::{
    model::Mode,
    observe::{
        health::What,
        vitals::{Facts, MapFill, Vitals},
    },
    source::KINDS,
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Unit};
use std::{
    fmt,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Everything on the page but the histogram.
#[derive(Debug)]
pub(super) struct Page {
    facts: Facts,
    troubled: Vec<String>,
    /// Ages become dates by it.
    now: Date,
}

/// The two clocks, read together.
#[derive(Clone, Copy, Debug)]
struct Date {
    monotonic: Instant,
    /// Seconds since the epoch.
    wall: f64,
}

impl Page {
    pub(super) fn of(vitals: &Vitals) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self {
            facts: vitals.facts(),
            troubled: vitals.reach().troubles().keys().map(ToString::to_string).collect(),
            now: Date { monotonic: Instant::now(), wall },
        }
    }

    fn date(&self, when: Instant) -> f64 {
        self.now.wall - self.now.monotonic.saturating_duration_since(when).as_secs_f64()
    }

    fn daemon(&self, families: &mut Families<'_>) -> fmt::Result {
        let facts = &self.facts;
        families.gauge(
            ("build_info", "Always 1; the version is a label", None),
            [(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
        )?;
        families.gauge(
            ("synced", "1 once the maps have held all that the source told", None),
            [(Labels::new(), truth(facts.synced.is_some()))],
        )?;
        families.gauge(
            (
                "last_sync_timestamp",
                "When the maps were last brought in step with the source, since the epoch",
                Some(Unit::Seconds),
            ),
            facts.last_sync.map(|when| (Labels::new(), self.date(when))),
        )?;
        families.gauge(
            ("mode", "1 for the mode that holds on this node", None),
            [Mode::Active, Mode::Drain, Mode::Bypass].map(|mode| {
                let holds = facts.modes.is_some_and(|modes| modes.mode() == mode);
                (vec![("mode", mode.as_str().to_owned())], truth(holds))
            }),
        )?;
        families.gauge(
            ("problems", "Objects' problems that the log tells of now", None),
            [(Labels::new(), facts.problems as f64)],
        )?;
        families.gauge(
            (
                "misnamed_cluster",
                "1 if an importer calls this cluster by another name than --cluster-name",
                None,
            ),
            [(Labels::new(), truth(facts.misnamed.is_some()))],
        )
    }

    fn sources(&self, families: &mut Families<'_>) -> fmt::Result {
        let kind = |kind: &dyn fmt::Display| vec![("kind", kind.to_string())];
        families.counter(
            ("source", "Events of the source by the kind of object", Some(Unit::Other("events".into()))),
            self.facts.sources.iter().map(|(object, source)| (kind(object), source.events)),
        )?;
        families.gauge(
            (
                "source_last_event_timestamp",
                "When the source last told of an object of the kind, since the epoch",
                Some(Unit::Seconds),
            ),
            self.facts.sources.iter().map(|(object, source)| (kind(object), self.date(source.last))),
        )?;
        families.gauge(
            ("source_up", "Whether objects of the kind are listed and watched without an error now", None),
            KINDS.iter().map(|object| (kind(object), truth(!self.troubled.contains(&object.to_string())))),
        )
    }

    fn transactions(&self, families: &mut Families<'_>) -> fmt::Result {
        let facts = &self.facts;
        families.counter(
            ("transactions", "Changes of the maps that were carried out", None),
            [(Labels::new(), facts.commits)],
        )?;
        families.counter(
            ("failed_transactions", "Changes of the maps that the kernel refused; all is tried again", None),
            [(Labels::new(), facts.failures)],
        )?;
        families.gauge(
            ("frontends", "VIPs, ports and protocols that should be in the maps", None),
            facts.last_commit.map(|last| (Labels::new(), last.frontends as f64)),
        )?;
        families.gauge(
            ("rejected_frontends", "Of these, those that the maps have no room for", None),
            [(Labels::new(), facts.rejected.len() as f64)],
        )
    }

    fn interfaces(&self, families: &mut Families<'_>) -> fmt::Result {
        let interfaces = &self.facts.interfaces;
        families.gauge(
            (
                "interfaces",
                "Pods' interfaces: with the programs on them, refusing them, without answers that we see",
                None,
            ),
            [
                ("attached", interfaces.attached),
                ("refused", interfaces.refused.len()),
                ("silent", interfaces.silent.len()),
            ]
            .map(|(state, count)| (vec![("state", state.to_owned())], count as f64)),
        )
    }

    fn outages(&self, families: &mut Families<'_>) -> fmt::Result {
        let outages = &self.facts.outages;
        let clusters = outages.diverted.iter().filter(|one| matches!(one.what, What::Family(_)));
        families.gauge(
            (
                "unanswered_clusters",
                "Source clusters, counted by family, that do not answer: others take their new flows, or no other could",
                None,
            ),
            [("diverted", clusters.count()), ("kept", outages.kept.len())]
                .map(|(state, count)| (vec![("state", state.to_owned())], count as f64)),
        )
    }

    fn maps(&self, families: &mut Families<'_>) -> fmt::Result {
        let flows = self.facts.flows;
        let fills: Vec<MapFill> = self
            .facts
            .tables
            .iter()
            .copied()
            .chain(flows.into_iter().flat_map(|flows| [flows.established, flows.transient]))
            .collect();
        let map = |fill: &MapFill| vec![("map", fill.map.to_owned())];
        let entries = || Some(Unit::Other("entries".into()));
        families.gauge(
            ("map", "Entries in use; of the flow maps as of the last look through them", entries()),
            fills.iter().map(|fill| (map(fill), fill.in_use as f64)),
        )?;
        families.gauge(
            ("map_max", "Entries that the map has room for", entries()),
            fills.iter().map(|fill| (map(fill), fill.capacity as f64)),
        )?;
        let count = |labels: &str, value: u64| (vec![("state", labels.to_owned())], value as f64);
        families.gauge(
            (
                "open",
                "Flows of the packet path, as of the last look through them",
                Some(Unit::Other("flows".into())),
            ),
            flows.into_iter().flat_map(|flows| {
                [count("established", flows.established.in_use), count("transient", flows.transient.in_use)]
            }),
        )?;
        let busiest = flows.and_then(|flows| flows.busiest);
        families.gauge(
            (
                "interface_share",
                "Established flows of the interface that has most of them, over what one may have",
                Some(Unit::Ratios),
            ),
            busiest.map(|(_, fill)| (Labels::new(), fill.in_use as f64 / fill.capacity.max(1) as f64)),
        )
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        self.daemon(families)?;
        self.sources(families)?;
        self.transactions(families)?;
        self.interfaces(families)?;
        self.outages(families)?;
        self.maps(families)
    }
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
