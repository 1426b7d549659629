//! What people are told: names beside numbers.

pub mod catalog;
