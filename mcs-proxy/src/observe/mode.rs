//! The mode that was ordered on this node, in `mode.json` in the run directory: a daemon that starts goes on with it.

use super::json_file;
use crate::model::{Mode, NodeMode};
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::Path};

/// In the run directory.
pub const FILE: &str = "mode.json";

/// What the settings say, and what was ordered on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    pub settings: Mode,
    pub node: NodeMode,
}

impl Modes {
    /// What holds.
    #[must_use]
    pub const fn mode(self) -> Mode {
        self.node.over(self.settings)
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mode, settings) = (self.mode().as_str(), self.settings.as_str());
        match self.node {
            NodeMode::Auto => write!(formatter, "{mode}, as the settings say"),
            NodeMode::Active | NodeMode::Drain | NodeMode::Bypass => write!(
                formatter,
                "{mode}, ordered on this node; the settings say {settings}, and `mcs-proxy mode auto` returns to them"
            ),
        }
    }
}

/// What was ordered last; `auto` if nothing was.
///
/// # Errors
/// The file is there but cannot be read.
pub fn read(run_dir: &Path) -> io::Result<NodeMode> {
    json_file::read(run_dir, FILE)
}

/// Notes what is ordered.
///
/// # Errors
/// The run directory cannot be made or written to.
pub fn write(run_dir: &Path, mode: NodeMode) -> io::Result<()> {
    json_file::write(run_dir, FILE, &mode)
}
