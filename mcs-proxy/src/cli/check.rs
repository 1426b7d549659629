//! `mcs-proxy check`.

use super::report;
use crate::{
    check::{self, Intent},
    config::{Check, Output, Places},
    dataplane::pins::PinDir,
    observe::line::{Level, worst},
};
use anyhow::Context as _;

/// What was found, and how bad it is.
///
/// # Errors
/// It cannot be written in the format that is asked for.
pub fn check(places: &Places, asked: &Check) -> anyhow::Result<(String, Level)> {
    let (pin_dir, run_dir) = (PinDir::new(&places.pin_dir), places.run_dir());
    let lines = check::check(&Intent {
        pin_dir: &pin_dir,
        run_dir: &run_dir,
        sizes: &asked.sizes.map_sizes(),
        cgroup: asked.cgroup.as_deref(),
    });
    let text = match asked.output {
        Output::Table => report::table(&lines) + "\n" + &report::summary(&lines),
        Output::Json => serde_json::to_string_pretty(&lines).context("cannot write JSON")? + "\n",
        Output::Yaml => serde_saphyr::to_string(&lines).context("cannot write YAML")?,
    };
    Ok((text, worst(&lines)))
}
