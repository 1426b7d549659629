//! How the daemon is doing: the task that writes the maps notes it here, and whoever asks reads it, so that no question
//! waits for that task and that task for none.

use crate::{
    model::{ObjectKind, Problem},
    observe::{
        drift::Drift, interfaces::SilentInterface, inventory::Inventory, mode::Modes, outages::OutageFacts,
    },
    source::{Reach, Troubles},
};
use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A task that has not turned for so long hangs: the longest that was seen of it, a first sync with 100,000 endpoints,
/// takes seconds.
pub const LONGEST_TURN: Duration = Duration::from_secs(60);

/// Maps that refuse a change for so long are told of.
pub const LONGEST_FAILURE: Duration = Duration::from_secs(60);

/// Seconds from decoded to live, as kube-proxy's `network_programming_duration_seconds`, but from a millisecond on.
const LATENCIES: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Shared by all who note and all who ask.
#[derive(Debug)]
pub struct Vitals {
    started: Instant,
    /// When the writer's task last turned, in milliseconds since the start.
    turned: AtomicU64,
    latency: Histogram,
    reach: Reach,
    facts: Mutex<Facts>,
}

/// What is known now.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Kinds of which no complete list has come yet.
    pub awaited: Vec<ObjectKind>,
    /// When the maps first held all that the source told.
    pub synced: Option<Instant>,
    /// When they last were in step with it.
    pub last_sync: Option<Instant>,
    /// Since when the kernel has refused changes of the maps.
    pub failing_since: Option<Instant>,
    pub failures: u64,
    /// Transactions that were carried out: each changed what the maps hold.
    pub commits: u64,
    pub last_commit: Option<LastCommit>,
    pub sources: BTreeMap<ObjectKind, SourceFacts>,
    pub modes: Option<Modes>,
    /// Problems with objects, as they are in the log and in Events.
    pub problems: usize,
    /// The first few of them.
    pub first_problems: Vec<Problem>,
    /// What importers call this cluster, if that is not `--cluster-name`.
    pub misnamed: Option<String>,
    /// Frontends that do not fit the maps, a sentence each.
    pub rejected: Vec<String>,
    pub interfaces: InterfaceFacts,
    pub outages: OutageFacts,
    pub sockets: SocketFacts,
    /// How full the maps are that the daemon fills.
    pub tables: Vec<MapFill>,
    /// Of the last look through the flows.
    pub flows: Option<FlowFacts>,
    /// What should be in the maps, as of a commit that may not be the last.
    pub inventory: Option<Arc<RwLock<Inventory>>>,
    /// Which commit that is: how many had been carried out. Less while the names follow a change.
    pub named: u64,
    /// How the maps compared with it, and when.
    pub drift: Option<(Instant, Drift)>,
    /// Why the names could not be written.
    pub catalog_failure: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub struct LastCommit {
    pub when: Instant,
    pub took: Duration,
    /// Frontends entered, changed or taken out.
    pub changed: usize,
    pub frontends: usize,
    /// Slots of all of them.
    pub backends: usize,
}

/// What came of one kind.
#[derive(Clone, Copy, Debug)]
pub struct SourceFacts {
    pub events: u64,
    pub last: Instant,
}

#[derive(Clone, Debug, Default)]
pub struct InterfaceFacts {
    /// `tcx`, `clsact`, or `auto` while none is attached.
    pub hook: String,
    pub attached: usize,
    /// Those that refused the programs, by index.
    pub refused: BTreeMap<u32, String>,
    pub silent: Vec<SilentInterface>,
}

/// Whether sockets are translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SocketFacts {
    /// Switched off, or every program is.
    #[default]
    Off,
    /// `host` or `all`, and the cgroup.
    Served {
        whose: &'static str,
        cgroup: String,
    },
    Failed(String),
    /// It is tried again; what holds until then.
    Delayed {
        why: String,
        meanwhile: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    pub map: &'static str,
    pub in_use: u64,
    pub capacity: u64,
    /// The flag that raises it.
    pub flag: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct FlowFacts {
    pub when: Instant,
    pub established: MapFill,
    pub transient: MapFill,
    /// The interface with the most established flows, and its share.
    pub busiest: Option<(u32, MapFill)>,
}

/// What `/livez`, `/readyz` and `/healthz` answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// `ok` or `failed`.
    pub status: &'static str,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Age of the last moment at which the maps were brought in step with the source; absent before the first.
    pub last_sync_seconds: Option<f64>,
    /// For how long a first one has been waited for; absent once it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_synced_seconds: Option<f64>,
    /// Age of the last turn of the task that writes the maps, which turns once a second at least.
    pub last_turn_seconds: f64,
}

/// Which question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether a restart would help: the task that writes the maps turns.
    Live,
    /// Whether all that the source has is in the maps.
    Ready,
    /// Whether it is live and the maps take changes.
    Healthy,
}

impl Vitals {
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self {
            started: Instant::now(),
            turned: AtomicU64::new(0),
            latency: Histogram::new(LATENCIES),
            reach,
            facts: Mutex::default(),
        }
    }

    /// The writer's task is alive.
    pub fn turn(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(millis, Ordering::Relaxed);
    }

    /// Notes something. Short: the writer's task must not wait.
    pub fn note(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock());
    }

    /// An event that was decoded then is live now.
    pub fn note_latency(&self, latency: Duration) {
        self.latency.observe(latency.as_secs_f64());
    }

    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    #[must_use]
    pub const fn reach(&self) -> &Reach {
        &self.reach
    }

    #[must_use]
    pub const fn latency(&self) -> &Histogram {
        &self.latency
    }

    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long ago the writer's task last turned.
    #[must_use]
    pub fn since_turn(&self) -> Duration {
        let turned = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(turned)
    }

    #[must_use]
    pub fn health(&self, probe: Probe) -> Health {
        let (facts, since_turn) = (self.facts(), self.since_turn());
        let because = unwell(&facts, since_turn, &self.reach.troubles(), probe);
        Health {
            status: if because.is_none() { "ok" } else { "failed" },
            because,
            last_sync_seconds: facts.last_sync.map(|when| when.elapsed().as_secs_f64()),
            not_synced_seconds: facts.synced.is_none().then(|| self.uptime().as_secs_f64()),
            last_turn_seconds: since_turn.as_secs_f64(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the answer is no.
fn unwell(facts: &Facts, since_turn: Duration, troubles: &Troubles, probe: Probe) -> Option<String> {
    if since_turn > LONGEST_TURN {
        return Some(format!("the task that writes the maps has not turned for {} s", since_turn.as_secs()));
    }
    match probe {
        Probe::Live => None,
        Probe::Ready if facts.synced.is_none() => Some(if facts.awaited.is_empty() {
            "the maps do not hold yet what the source told".to_owned()
        } else {
            let kinds: Vec<_> = facts.awaited.iter().map(ToString::to_string).collect();
            let why = troubles.iter().next().map(|(kind, trouble)| format!("; {kind}s: {}", trouble.why));
            format!(
                "no complete list yet of {}; what the maps hold from before is served until then{}",
                kinds.join(", "),
                why.unwrap_or_default()
            )
        }),
        Probe::Ready => None,
        Probe::Healthy => {
            let since = facts.failing_since.map(|since| since.elapsed());
            since.filter(|since| *since > LONGEST_FAILURE).map(|since| {
                format!("the kernel has refused changes of the maps for {} s; see the log", since.as_secs())
            })
        }
    }
}

/// For those who hand it on.
pub type SharedVitals = Arc<Vitals>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_fails_for_its_own_reason() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let waiting = Facts { awaited: vec![ObjectKind::Service], ..Facts::default() };
        let synced = Facts { synced: ago(1), ..Facts::default() };
        let failing = Facts { failing_since: ago(61), ..synced.clone() };
        let recently = Facts { failing_since: ago(2), ..synced.clone() };
        let (fresh, stuck) = (Duration::ZERO, LONGEST_TURN + Duration::from_secs(1));
        let all = [Probe::Live, Probe::Ready, Probe::Healthy];
        for (facts, since_turn, failed) in [
            (&waiting, fresh, [false, true, false]),
            (&synced, fresh, [false; 3]),
            (&recently, fresh, [false; 3]),
            (&failing, fresh, [false, false, true]),
            (&synced, stuck, [true; 3]),
        ] {
            let found = all.map(|probe| unwell(facts, since_turn, &Troubles::new(), probe).is_some());
            assert_eq!(found, failed, "{facts:?} {since_turn:?}");
        }
        let reach = Reach::default();
        reach.failed(ObjectKind::Service, "connection refused".into());
        let said = unwell(&waiting, fresh, &reach.troubles(), Probe::Ready).unwrap();
        assert!(said.starts_with("no complete list yet of Service; "), "{said}");
        assert!(said.ends_with("; Services: connection refused"), "{said}");
    }

    #[test]
    fn a_turn_is_noted_and_grows_old() {
        let vitals = Vitals::new(Reach::default());
        std::thread::sleep(Duration::from_millis(5));
        assert!(vitals.since_turn() >= Duration::from_millis(5));
        vitals.turn();
        assert!(vitals.since_turn() < Duration::from_secs(30));
    }
}
