//! `/metrics`: what the daemon knows, and what the maps counted, in OpenMetrics.
//!
//! Names follow Prometheus' conventions: `mcs_proxy_`, the unit, `_total` on counters. A scrape reads; it never waits for
//! the task that writes the maps.

mod counted;
mod families;
mod ledger;
mod page;

pub use counted::Counted;
pub use ledger::Ledger;

use super::vitals::Vitals;
use page::Page;
use prometheus_client::{
    encoding::text,
    registry::{Registry, Unit},
};
use std::fmt;

/// The whole page.
///
/// # Errors
/// None that a `String` can have.
pub fn exposition(vitals: &Vitals, counted: Counted) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("mcs_proxy");
    registry.register_with_unit(
        "sync_latency",
        "From an object's change, decoded, to the maps that hold what follows from it, by change, once synced",
        Unit::Seconds,
        vitals.latency().clone(),
    );
    registry.register_collector(Box::new(Page::of(vitals)));
    registry.register_collector(Box::new(counted));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}
