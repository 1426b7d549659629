//! What a run leaves: its samples, a table and a picture. The latter two are made from the first alone.

mod chart;
mod table;

use crate::{ratios, samples::Run};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{fs, path::Path};

pub(crate) use table::markdown;

/// Writes `samples.json`, `table.md` and `chart.svg`.
pub(crate) fn write(run: &Run, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("samples.json", serde_json::to_string(run)? + "\n")?;
    write("table.md", markdown(run))?;
    write("chart.svg", chart::svg(run))
}

/// What `--json` prints.
pub(crate) fn summary(run: &Run) -> Value {
    json!({ "machine": run.machine, "quick": run.quick, "ratios": ratios::all(run) })
}
