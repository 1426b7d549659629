//! Holds the maps against what should be in them, from time to time and for those who ask, on a thread of its own.

use crate::{
    dataplane::pins::{PinDir, Pins, PinsError},
    observe::{drift::Drift, inventory::Inventory, vitals::SharedVitals, with_causes},
};
use std::{sync::PoisonError, thread, time::Duration};
use tokio::{
    task,
    time::{self, Instant},
};
use tracing::{debug, warn};

/// After a comparison it rests for this many times as long as it took, at least.
const REST: u32 = 128;
/// While changes follow one another, a comparison is tried again after so long.
const PAUSE: Duration = Duration::from_millis(50);
/// And so often.
const TRIES: u32 = 20;

/// Compares for as long as it is polled; drift that is seen twice in a row is warned of, once.
pub(super) async fn watch(vitals: SharedVitals, pin_dir: PinDir, interval: Duration) {
    let (mut before, mut told) = (false, false);
    let mut rest = interval;
    loop {
        time::sleep(rest).await;
        let start = Instant::now();
        let (vitals, pin_dir) = (vitals.clone(), pin_dir.clone());
        let Ok(drift) = task::spawn_blocking(move || compare(&vitals, &pin_dir)).await else { return };
        rest = interval.max(REST * start.elapsed());
        let Some(drift) = drift else { continue };
        let drifted = !drift.is_none();
        if drifted && before && !told {
            let first = drift.objects.first();
            warn!(
                "the maps do not hold what they should: {} of {} frontends, the first one {}; see `mcs-proxy status`",
                drift.count(),
                drift.frontends,
                first
                    .map(|first| format!("{} of Service {}: {}", first.frontend, first.service, first.says))
                    .unwrap_or_default()
            );
            told = true;
        }
        told &= drifted;
        before = drifted;
    }
}

/// Compares now, and notes it. `None`: the maps changed all the time, or could not be read, or the names are behind.
pub(super) fn compare(vitals: &SharedVitals, pin_dir: &PinDir) -> Option<Drift> {
    for _ in 0..TRIES {
        let Some(inventory) = vitals.facts().inventory else {
            thread::sleep(PAUSE);
            continue;
        };
        let inventory = inventory.read().unwrap_or_else(PoisonError::into_inner);
        // Asked for while it stays as it is.
        let facts = vitals.facts();
        if facts.named != facts.commits {
            drop(inventory);
            thread::sleep(PAUSE);
            continue;
        }
        match read(pin_dir, &inventory) {
            // A change in between would be taken for drift.
            Ok(drift) if vitals.facts().commits == facts.commits => {
                vitals.note(|facts| facts.drift = Some((std::time::Instant::now(), drift.clone())));
                return Some(drift);
            }
            Ok(_) => {}
            Err(failure) => {
                debug!("drift: {}", with_causes(&failure));
                return None;
            }
        }
    }
    None
}

fn read(pin_dir: &PinDir, inventory: &Inventory) -> Result<Drift, PinsError> {
    Ok(Drift::between(inventory, &Pins::open(pin_dir)?.frontends()?))
}
