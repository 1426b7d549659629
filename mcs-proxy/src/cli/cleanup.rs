//! `mcs-proxy cleanup`.

use super::align::align;
use crate::{
    config::{Cleanup, Output, Places},
    daemon::{
        leaving,
        lock::{self, Held},
    },
    dataplane::{leftovers, pins::PinDir},
    observe::with_causes,
};
use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::Serialize;

/// Something that daemons have left.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Row {
    /// `link`, `filter`, `pin`, `file`, `directory` or `foreign`
    kind: &'static str,
    /// A path; of a filter its interface and direction
    name: String,
    /// `found`, `removed`, `kept`: it is somebody else's, or used by somebody else; `failed`
    state: &'static str,
    /// Why it could not be removed
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Takes away, or lists, what daemons have left on this node.
///
/// # Errors
/// A daemon runs; or something could not be removed, and the error names it.
pub fn cleanup(places: &Places, asked: Cleanup) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(rows(places, asked))?;
    let failed: Vec<_> = rows.iter().filter(|row| row.state == "failed").collect();
    if !failed.is_empty() {
        let reasons: Vec<_> = failed.iter().filter_map(|row| row.reason.clone()).collect();
        bail!("{} of {} things could not be removed: {}", failed.len(), rows.len(), reasons.join("; "));
    }
    match asked.output {
        Output::Table => Ok(table(&rows, asked.dry_run)),
        Output::Json => Ok(serde_json::to_string_pretty(&rows).context("cannot write JSON")? + "\n"),
        Output::Yaml => serde_saphyr::to_string(&rows).context("cannot write YAML"),
    }
}

async fn rows(places: &Places, asked: Cleanup) -> anyhow::Result<Vec<Row>> {
    let (pins, run_dir) = (PinDir::new(&places.pin_dir), places.run_dir());
    // Held until all is gone, so that no daemon starts meanwhile.
    let _locks = match lock::hold_what_is_there(&pins, &run_dir) {
        Ok(locks) => Some(locks),
        // A list changes nothing.
        Err(error) if error.is::<Held>() && (asked.dry_run || asked.force) => None,
        Err(error) => return Err(error),
    };
    let mut rows = Vec::new();
    for leftover in leftovers::find(&pins, &run_dir, &leaving::files()).await? {
        let (state, reason) = if asked.dry_run {
            ("found", None)
        } else {
            match leftover.remove().await {
                Ok(true) => ("removed", None),
                Ok(false) => ("kept", None),
                Err(error) => ("failed", Some(with_causes(&error).to_string())),
            }
        };
        rows.push(Row { kind: leftover.kind(), name: leftover.to_string(), state, reason });
    }
    Ok(rows)
}

fn table(rows: &[Row], dry_run: bool) -> String {
    if rows.is_empty() {
        return "Nothing of mcs-proxy is left on this node.\n".into();
    }
    let header = vec!["Kind".to_owned(), "State".to_owned(), "Name".to_owned()];
    let lines = rows.iter().map(|row| vec![row.kind.to_owned(), row.state.to_owned(), row.name.clone()]);
    let hint = if dry_run { "Nothing was changed; without --dry-run all this goes.\n" } else { "" };
    align(&std::iter::once(header).chain(lines).collect::<Vec<_>>()) + hint
}
