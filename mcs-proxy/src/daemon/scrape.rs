//! What `/metrics` is made of, read on the thread of whoever asks.

use crate::observe::{metrics, vitals::SharedVitals};
use std::fmt;

/// Reads for `/metrics`.
#[derive(Debug)]
pub(super) struct Scraper {
    vitals: SharedVitals,
}

impl Scraper {
    pub(super) const fn new(vitals: SharedVitals) -> Self {
        Self { vitals }
    }

    /// # Errors
    /// As [`metrics::exposition`].
    pub(super) fn scrape(&self) -> Result<String, fmt::Error> {
        metrics::exposition(&self.vitals)
    }
}
