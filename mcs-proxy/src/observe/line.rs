//! What `mcs-proxy check` and `mcs-proxy status` consist of: a line for each thing looked at.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it is with one thing. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// What was looked at.
    pub part: String,
    pub level: Level,
    /// What was found.
    pub says: String,
    /// What to do about it; absent if there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Something works less well, or soon may not.
    Warning,
    /// Something does not work.
    Failed,
}

impl Level {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Line {
    pub fn ok(part: &str, says: impl Into<String>) -> Self {
        Self { part: part.to_owned(), level: Level::Ok, says: says.into(), way_out: None }
    }

    pub fn warning(part: &str, says: impl Into<String>, way_out: impl Into<String>) -> Self {
        let (says, way_out) = (says.into(), Some(way_out.into()));
        Self { part: part.to_owned(), level: Level::Warning, says, way_out }
    }

    pub fn failed(part: &str, says: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { level: Level::Failed, ..Self::warning(part, says, way_out) }
    }
}

/// The worst of them.
#[must_use]
pub fn worst(lines: &[Line]) -> Level {
    lines.iter().map(|line| line.level).max().unwrap_or(Level::Ok)
}
