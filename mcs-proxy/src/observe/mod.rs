//! What people are told: names beside numbers.

pub mod catalog;
mod causes;
pub mod events;
pub mod health;
pub mod interfaces;
mod json_file;
pub mod metrics;
pub mod mode;
pub mod vitals;

pub use causes::with_causes;
