//! What people are told: names beside numbers.

pub mod catalog;
mod causes;

pub use causes::with_causes;
