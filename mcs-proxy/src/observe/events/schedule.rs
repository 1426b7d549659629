use super::{Topic, topic::note};
use crate::model::{Problem, ProblemNews};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// More topics than anyone reads; those beyond are in the log alone. It bounds what one who writes slices and Services
/// by the thousand makes us write.
const MOST: usize = 256;

/// Which Events are to be written, and when. It knows no clock and writes nothing.
#[derive(Debug)]
pub struct Schedule {
    /// The longest wait between a problem and its Event.
    jitter: Duration,
    entries: BTreeMap<Topic, Entry>,
}

#[derive(Debug)]
struct Entry {
    problems: BTreeSet<Problem>,
    due: Instant,
}

impl Schedule {
    /// Of nodes that see a problem at once, each waits for another part of `jitter`.
    #[must_use]
    pub const fn new(jitter: Duration) -> Self {
        Self { jitter, entries: BTreeMap::new() }
    }

    /// Takes in what has changed. `random`: from 0 to 1, anew each time.
    pub fn note(&mut self, news: &ProblemNews, now: Instant, mut random: impl FnMut() -> f64) {
        for problem in &news.solved {
            let topic = Topic::of(problem);
            if let Some(entry) = self.entries.get_mut(&topic) {
                entry.problems.remove(problem);
                if entry.problems.is_empty() {
                    self.entries.remove(&topic);
                }
            }
        }
        for problem in &news.arisen {
            let topic = Topic::of(problem);
            if let Some(entry) = self.entries.get_mut(&topic) {
                entry.problems.insert(problem.clone());
            } else if self.entries.len() < MOST {
                let due = now + self.jitter.mul_f64(random());
                self.entries.insert(topic, Entry { problems: [problem.clone()].into(), due });
            }
        }
    }

    /// When there is something to write.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// What is to be written first of what is due, and its note.
    #[must_use]
    pub fn first(&self, now: Instant) -> Option<(Topic, String)> {
        let due = self.entries.iter().filter(|(_, entry)| entry.due <= now);
        let (topic, entry) = due.min_by_key(|(_, entry)| entry.due)?;
        Some((topic.clone(), note(entry.problems.iter())))
    }

    /// The Event is there, or is not to be: the topic's next one comes after `renewal`.
    pub fn settled(&mut self, topic: &Topic, now: Instant, renewal: Duration, random: f64) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.due = now + renewal + self.jitter.mul_f64(random);
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
