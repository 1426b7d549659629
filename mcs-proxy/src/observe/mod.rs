//! What people are told: names beside numbers.

pub mod catalog;
mod causes;
pub mod drained;
pub mod drift;
pub mod events;
pub mod health;
pub mod interfaces;
pub mod inventory;
mod json_file;
pub mod line;
pub mod metrics;
pub mod mode;
pub mod outages;
pub mod status;
pub mod verdict_names;
pub mod vitals;

pub use causes::with_causes;
