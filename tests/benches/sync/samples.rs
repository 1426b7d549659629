//! What was seen, as it is kept.

use crate::{
    machine::Machine,
    ours::{Memory, Sync},
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// Everything of one run: `samples.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) services: u32,
    /// Of each Service.
    pub(crate) endpoints: u32,
    pub(crate) memory: Memory,
    /// Of our own sync alone, beside nothing.
    pub(crate) syncs: Vec<Sync>,
    pub(crate) rounds: Vec<Round>,
}

/// Everything once, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) sync: Sync,
    /// The daemon.
    pub(crate) ours: Process,
    /// The real kube-proxy, by mode.
    pub(crate) theirs: BTreeMap<String, Process>,
    /// Seconds that a program takes to load kube-proxy's rules, by the program's name.
    pub(crate) loads: BTreeMap<String, f64>,
}

/// A process that programs what an API server holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// From its start to all of it programmed.
    pub(crate) start_seconds: f64,
    /// From the writing of one Service's slice to that programmed, one after the other.
    pub(crate) change_seconds: Vec<f64>,
}

impl Run {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}
