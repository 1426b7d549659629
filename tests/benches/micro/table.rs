//! The rows, as they are printed and kept.

use crate::lookups::{self, Call, Lookup};
use serde::{Deserialize, Serialize};
use std::{fs, path::PathBuf};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) family: String,
    pub(crate) program: String,
    pub(crate) path: Path,
    pub(crate) maps: Maps,
    /// Someone listens to all events, as `mcs-proxy monitor` does.
    #[serde(default)]
    pub(crate) told: bool,
    /// Of the empty program, run the same way.
    pub(crate) empty_ns: f64,
    pub(crate) ns: f64,
    pub(crate) ratio: f64,
    /// That the verifier walked through.
    pub(crate) instructions: u32,
}

/// The way of a packet through a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Path {
    /// Nothing of ours.
    Miss,
    Established,
    /// A SYN to a frontend.
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Maps {
    /// One key, or a few.
    Warm,
    /// 64k frontends and 512k flows, keys at random.
    Filled,
}

/// What is printed with `--json`, and kept as [`baseline`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) lookups: Vec<Lookup>,
    #[serde(default)]
    pub(crate) calls: Vec<Call>,
}

impl Row {
    /// What the ratio is to stay below.
    const fn limit(&self) -> f64 {
        match (self.path, self.maps) {
            (Path::Miss, _) => 3.0,
            (Path::Established, Maps::Warm) => 6.0,
            (Path::Established, Maps::Filled) => 14.0,
            // The ring is written to as well.
            (Path::New, Maps::Warm) if self.told => 65.0,
            (Path::New, Maps::Warm) => 55.0,
            (Path::New, Maps::Filled) => 80.0,
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.family, &self.program, self.path, self.maps, self.told)
            == (&other.family, &other.program, other.path, other.maps, other.told)
    }

    /// What is run, as both tables name it.
    fn names(&self) -> String {
        let Self { family, program, path, maps, told, .. } = self;
        let (path, maps) = (format!("{path:?}").to_lowercase(), format!("{maps:?}").to_lowercase());
        let listener = if *told { "yes" } else { "no" };
        format!("{family:6} {program:8} {path:11} {maps:7} {listener:8}")
    }
}

impl Table {
    /// The table that changes are compared with: beside this source.
    pub(crate) fn baseline_path() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/micro/baseline.json"))
    }

    pub(crate) fn read_baseline() -> Self {
        let path = Self::baseline_path();
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn save_as_baseline(&self) {
        let path = Self::baseline_path();
        let text = serde_json::to_string_pretty(self).unwrap() + "\n";
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub(crate) fn print(&self) {
        println!(
            "family program  path        maps    listener empty ns  program ns  ratio  limit  verified instructions"
        );
        for row in &self.rows {
            let Row { empty_ns, ns, ratio, instructions, .. } = row;
            let over = if *ratio > row.limit() { "  over the limit" } else { "" };
            println!(
                "{} {empty_ns:8.0} {ns:11.0} {ratio:6.2} {:6.0} {instructions:22}{over}",
                row.names(),
                row.limit(),
            );
        }
        lookups::print(&self.lookups, &self.calls);
    }

    /// Ratios and instructions beside those of another table.
    pub(crate) fn print_beside(&self, old: &Self) {
        println!(
            "family program  path        maps    listener ratio before  now  change  instructions before    now"
        );
        for row in &self.rows {
            let (Row { ratio, instructions, .. }, names) = (row, row.names());
            match old.rows.iter().find(|other| other.is_of(row)) {
                Some(before) => println!(
                    "{names} {:12.2} {ratio:5.2} {:+5.0} % {:20} {instructions:6}",
                    before.ratio,
                    (ratio / before.ratio - 1.0) * 100.0,
                    before.instructions,
                ),
                None => println!("{names}          new {ratio:5.2} {:>29} {instructions:6}", ""),
            }
        }
    }
}
