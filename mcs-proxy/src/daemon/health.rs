//! Reads what the programs count, from time to time, and has it judged, on a thread of its own.

use crate::{
    config::HealthFlags,
    dataplane::{
        counters::BackendCounters,
        pins::{PinDir, PinsError},
    },
    health::{Findings, Health, Subject, Watch},
    observe::{
        health::{self, Unanswered},
        with_causes,
    },
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    task::{self, JoinHandle},
    time::Instant,
};
use tracing::{error, warn};

/// So many looks in a window, unless they took longer than a sixteenth of the time.
const LOOKS: u32 = 20;
const REST: u32 = 16;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// What is known of health, and the look that is under way.
#[derive(Debug)]
pub(super) struct Looks {
    run_dir: PathBuf,
    period: Duration,
    due: Instant,
    /// Elsewhere while a look is under way.
    judge: Option<Judge>,
    under_way: Option<JoinHandle<(Judge, Looked)>>,
    /// As it was written last.
    written: Vec<Unanswered>,
    failing: bool,
}

#[derive(Debug)]
struct Judge {
    health: Health,
    counters: Option<BackendCounters>,
}

#[derive(Debug)]
struct Looked {
    found: Result<Findings, PinsError>,
    took: Duration,
}

impl Looks {
    /// Goes on from what the last daemon has found out.
    pub(super) fn new(flags: &HealthFlags, run_dir: &Path) -> Self {
        let written = health::read(run_dir).unwrap_or_else(|failure| {
            warn!("{}: {failure}; what did not answer is found out anew", run_dir.display());
            Vec::new()
        });
        let subjects: BTreeSet<_> = written.iter().map(Unanswered::subject).collect();
        let window = *flags.failure_window;
        let now = Instant::now();
        let health = Health::new(window, flags.eject_unanswered, &subjects, now.into_std());
        Self {
            run_dir: run_dir.to_owned(),
            period: (window / LOOKS).clamp(SHORTEST, LONGEST),
            due: now,
            judge: Some(Judge { health, counters: None }),
            under_way: None,
            written,
            failing: false,
        }
    }

    /// What is known before the first look.
    pub(super) fn findings(&self) -> Findings {
        self.judge.as_ref().map(|judge| judge.health.known()).unwrap_or_default()
    }

    /// What does not answer, and since when.
    pub(super) fn unanswered(&self) -> &[Unanswered] {
        &self.written
    }

    /// When to look, if there is anything to see.
    pub(super) fn due(&self, watch: &Watch) -> Option<Instant> {
        let judge = self.judge.as_ref()?;
        (!watch.frontends.is_empty() || judge.health.has_outages()).then_some(self.due)
    }

    pub(super) fn begin(&mut self, pin_dir: PinDir, watch: Arc<Watch>) {
        let Some(judge) = self.judge.take() else { return };
        self.under_way = Some(task::spawn_blocking(move || look(judge, &pin_dir, &watch)));
    }

    /// Waits for the look that is under way. `None`: it failed.
    pub(super) async fn finished(&mut self) -> Option<Findings> {
        let Some((judge, Looked { found, took })) = super::finished(&mut self.under_way).await else {
            return std::future::pending().await;
        };
        self.under_way = None;
        self.due = Instant::now() + self.period.max(REST * took);
        let found = match found {
            Ok(found) => {
                self.failing = false;
                self.write(&judge.health);
                Some(found)
            }
            Err(failure) => {
                if !std::mem::replace(&mut self.failing, true) {
                    error!("{}; nobody looks whether clusters answer", with_causes(&failure));
                }
                None
            }
        };
        self.judge = Some(judge);
        found
    }

    fn write(&mut self, health: &Health) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let since = |subject: &Subject| {
            self.written.iter().find(|known| known.subject() == *subject).map_or(now, |known| known.since)
        };
        let current: Vec<_> =
            health.subjects().map(|subject| Unanswered::of(subject, since(subject))).collect();
        if current == self.written {
            return;
        }
        if let Err(failure) = health::write(&self.run_dir, &current) {
            warn!("{}: {failure}; a restart finds out anew what does not answer", self.run_dir.display());
        }
        self.written = current;
    }
}

fn look(mut judge: Judge, pin_dir: &PinDir, watch: &Watch) -> (Judge, Looked) {
    let start = Instant::now();
    let counters = match judge.counters.take() {
        Some(counters) => Ok(counters),
        None => BackendCounters::open(pin_dir),
    };
    let found = counters.map(|counters| {
        let found = judge.health.judge(watch, |backend| counters.of(backend).ok(), start.into_std());
        judge.counters = Some(counters);
        found
    });
    (judge, Looked { found, took: start.elapsed() })
}
