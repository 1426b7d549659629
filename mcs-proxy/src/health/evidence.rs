use super::ENOUGH;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

/// What an endpoint has had since it answered last, over all frontends that have it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// When it was first seen to have a new flow without an answer to any since.
    pub(super) silent_since: Option<Instant>,
    /// How many such flows it has had.
    pub(super) unanswered: usize,
    pub(super) answered: Option<Instant>,
    /// When it was last seen to take new flows.
    pub(super) in_slots: Option<Instant>,
}

impl Evidence {
    /// Its counters have grown so much. Which flow an answer belongs to nobody knows: any answer shows that it is there.
    pub(super) fn note(&mut self, flows: u32, replies: u32, now: Instant) {
        if replies > 0 {
            self.answered = Some(now);
            self.forget_flows();
        } else if flows > 0 {
            self.silent_since.get_or_insert(now);
            self.unanswered = self.unanswered.saturating_add(flows as usize);
        }
    }

    pub(super) fn forget_flows(&mut self) {
        self.silent_since = None;
        self.unanswered = 0;
    }

    pub(super) fn fails(&self, now: Instant, window: Duration) -> bool {
        self.is_silent(now, window) && self.unanswered >= ENOUGH
    }

    fn is_silent(&self, now: Instant, window: Duration) -> bool {
        self.silent_since.is_some_and(|since| now.duration_since(since) >= window)
    }
}

/// What the endpoints of a cluster add up to.
#[derive(Clone, Debug, Default)]
pub(super) struct WayState {
    /// Pods that take new flows. Several ports of one are one.
    pods: BTreeSet<IpAddr>,
    /// Those that have been silent for the window.
    silent: BTreeSet<IpAddr>,
    /// Flows without an answer, to silent ones.
    unanswered: usize,
    /// The first silence that no answer from anyone has followed.
    silent_since: Option<Instant>,
    answered: Option<Instant>,
}

impl WayState {
    pub(super) fn add(&mut self, pod: IpAddr, evidence: &Evidence, now: Instant, window: Duration) {
        if evidence.in_slots == Some(now) {
            self.pods.insert(pod);
        }
        self.answered = self.answered.max(evidence.answered);
        if let Some(since) = evidence.silent_since {
            self.silent_since = Some(self.silent_since.map_or(since, |first| first.min(since)));
        }
        if evidence.is_silent(now, window) {
            self.silent.insert(pod);
            self.unanswered += evidence.unanswered;
        }
    }

    /// No answer from anyone for the window, and enough that should have been answered.
    pub(super) fn fails(&self, now: Instant, window: Duration) -> bool {
        !self.answers(now, window)
            && !self.pods.is_empty()
            && self.silent.len() >= ENOUGH.min(self.pods.len())
            && self.unanswered >= ENOUGH
    }

    /// Whether anyone has answered within the window.
    pub(super) fn answers(&self, now: Instant, window: Duration) -> bool {
        self.answered.is_some_and(|answered| now.duration_since(answered) < window)
    }

    /// Whether it may be about to fail: nobody has answered since the first of its silent flows.
    pub(super) fn is_doubtful(&self) -> bool {
        self.silent_since.is_some() && self.answered < self.silent_since
    }
}
