//! The commands that look at what the maps hold, whether a daemon runs or not.

mod align;
mod backends;
mod connections;
mod services;
mod view;

use crate::config::{List, Output, Places};
use anyhow::Context as _;
use serde::Serialize;
use view::View;

/// `mcs-proxy services`.
///
/// # Errors
/// Nothing is pinned, or what is pinned or written cannot be read.
pub fn services(places: &Places, list: &List) -> anyhow::Result<String> {
    let rows = services::rows(&View::read(places)?, list.service.as_deref());
    render(&rows, list.output, services::table)
}

/// `mcs-proxy backends`.
///
/// # Errors
/// As [`services`].
pub fn backends(places: &Places, list: &List) -> anyhow::Result<String> {
    let rows = backends::rows(&View::read(places)?, list.service.as_deref());
    render(&rows, list.output, backends::table)
}

/// `mcs-proxy connections`.
///
/// # Errors
/// As [`services`].
pub fn connections(places: &Places, list: &List) -> anyhow::Result<String> {
    let rows = connections::rows(&View::read(places)?, list.service.as_deref());
    render(&rows, list.output, connections::table)
}

/// JSON and YAML are lists of the same objects, whose fields are documented at their types.
fn render<T: Serialize>(
    rows: &Vec<T>,
    output: Output,
    table: impl FnOnce(&[T]) -> String,
) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => table(rows),
        Output::Json => serde_json::to_string_pretty(rows).context("cannot write JSON")? + "\n",
        Output::Yaml => serde_saphyr::to_string(rows).context("cannot write YAML")?,
    })
}
