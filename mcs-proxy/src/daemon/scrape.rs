//! What `/metrics` is made of, read on the thread of whoever asks.

use crate::{
    dataplane::pins::{PinDir, Pins, PinsError},
    observe::{
        inventory::Inventory,
        metrics::{self, Counted, Ledger},
        vitals::SharedVitals,
        with_causes,
    },
};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::debug;

/// Counts that are younger are good enough: many who scrape cost no more than one.
const FRESH: Duration = Duration::from_secs(1);

/// Reads for `/metrics`, one at a time.
#[derive(Debug)]
pub(super) struct Scraper {
    vitals: SharedVitals,
    pin_dir: PinDir,
    /// Rows, at most.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    counted: Option<(Instant, Counted)>,
}

impl Scraper {
    pub(super) const fn new(vitals: SharedVitals, pin_dir: PinDir, most: usize) -> Self {
        let state = Mutex::new(State { ledger: Ledger::new(most), counted: None });
        Self { vitals, pin_dir, most, state }
    }

    /// # Errors
    /// As [`metrics::exposition`].
    pub(super) fn scrape(&self) -> Result<String, fmt::Error> {
        let facts = self.vitals.facts();
        let drift = facts.drift.map(|(_, drift)| drift);
        let counted = match facts.inventory {
            Some(inventory) => {
                let inventory = inventory.read().unwrap_or_else(PoisonError::into_inner);
                self.count(&inventory).with_endpoints(&inventory, self.most)
            }
            None => Counted::default(),
        };
        metrics::exposition(&self.vitals, counted.with_drift(drift))
    }

    fn count(&self, inventory: &Inventory) -> Counted {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, counted)) = &state.counted
            && when.elapsed() < FRESH
        {
            return counted.clone();
        }
        // What cannot be read is missing from the page, and the rest of it is there.
        let counted = read(&self.pin_dir, inventory, &mut state.ledger).unwrap_or_else(|failure| {
            debug!("metrics: {}", with_causes(&failure));
            Counted::default()
        });
        state.counted = Some((Instant::now(), counted.clone()));
        counted
    }
}

fn read(pin_dir: &PinDir, inventory: &Inventory, ledger: &mut Ledger) -> Result<Counted, PinsError> {
    let pins = Pins::open(pin_dir)?;
    ledger.update(inventory, &pins.frontends()?, &pins)?;
    Ok(Counted::of(ledger, pins.verdicts()?))
}
