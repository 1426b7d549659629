//! The JSON that the commands print, as JSON Schema: `deploy/schemas` has it in files.

use super::{
    backends::BackendRow, cleanup, connections::ConnectionRow, monitor, services::ServiceRow, stats::Stats,
    watch,
};
use crate::{
    explain::Explanation,
    observe::{line::Line, status::Status},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};

/// By the name of the command, or of what it is asked.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("services", of::<Vec<ServiceRow>>()),
        ("services-watch", of::<watch::Change<'_>>()),
        ("backends", of::<Vec<BackendRow>>()),
        ("connections", of::<Vec<ConnectionRow>>()),
        ("stats", of::<Stats>()),
        ("monitor", of::<monitor::Line>()),
        ("explain", of::<Vec<Explanation>>()),
        ("check", of::<Vec<Line>>()),
        ("cleanup", of::<Vec<cleanup::Row>>()),
        ("status", of::<Status>()),
    ]
}

/// As it is written, not as it would be read: what is always there is required.
fn of<T: JsonSchema>() -> Schema {
    SchemaGenerator::new(SchemaSettings::draft2020_12().for_serialize()).into_root_schema_for::<T>()
}
