use super::{Schedule, Topic};
use crate::model::ProblemNews;
use std::{
    collections::VecDeque,
    future,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{select, sync::Notify, time};

/// Where the control loop notes its problems, and who writes Events finds them. Its clones are one board.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    schedule: Mutex<Schedule>,
    noted: Notify,
    reports: Mutex<VecDeque<Report>>,
    reported: Notify,
}

/// What the cluster is told once, about the settings' ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub reason: &'static str,
    /// `Warning`, or `Normal`.
    pub is_warning: bool,
    pub note: String,
    /// Which order it answers.
    pub uninstall: String,
}

impl Board {
    /// As [`Schedule::new`].
    #[must_use]
    pub fn new(jitter: Duration) -> Self {
        Self(Arc::new(Shared {
            schedule: Mutex::new(Schedule::new(jitter)),
            noted: Notify::new(),
            reports: Mutex::default(),
            reported: Notify::new(),
        }))
    }

    /// Returns at once.
    pub fn note(&self, news: &ProblemNews) {
        if !news.arisen.is_empty() || !news.solved.is_empty() {
            self.schedule().note(news, Instant::now(), random);
            self.0.noted.notify_one();
        }
    }

    /// Returns at once.
    pub fn report(&self, report: Report) {
        self.0.reports.lock().unwrap_or_else(PoisonError::into_inner).push_back(report);
        self.0.reported.notify_one();
    }

    /// The next report, in order.
    pub async fn next_report(&self) -> Report {
        loop {
            let next = self.0.reports.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(report) = next {
                return report;
            }
            self.0.reported.notified().await;
        }
    }

    /// What is to be told now, and the note; waits until there is something.
    pub async fn next(&self) -> (Topic, String) {
        loop {
            let (first, due) = {
                let schedule = self.schedule();
                (schedule.first(Instant::now()), schedule.due())
            };
            if let Some(first) = first {
                return first;
            }
            select! {
                () = self.0.noted.notified() => {}
                () = until(due) => {}
            }
        }
    }

    /// It was told, or is not to be: the next time is after `renewal`.
    pub fn settled(&self, topic: &Topic, renewal: Duration) {
        self.schedule().settled(topic, Instant::now(), renewal, random());
    }

    /// Nothing that holds the lock can panic half-way.
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => future::pending().await,
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let random = RandomState::new().build_hasher().finish() % 1024;
    random as f64 / 1024.0
}
