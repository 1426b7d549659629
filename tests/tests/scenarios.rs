//! The page that says which test holds which scenario names tests that exist.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../SCENARIOS.md");

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Functions with `#[test]` on the line before, and what `in_both_modes!` makes such: all names but those before a colon.
fn tests() -> BTreeSet<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["tests", "../mcs-proxy/src", "../mcs-proxy-ebpf/src"] {
        sources(&here.join(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for block in text.split("\nin_both_modes! {").skip(1) {
            let block = &block[..block.find("\n}").unwrap()];
            let words =
                block.split([',', ';', ' ', '\n']).filter(|word| !word.is_empty() && !word.ends_with(':'));
            names.extend(words.map(str::to_owned));
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            if let ["#[test]" | "#[tokio::test]", function] = pair
                && let Some((_, rest)) = function.split_once("fn ")
                && let Some((name, _)) = rest.split_once('(')
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_test_that_the_page_of_scenarios_names_exists() {
    let tests = tests();
    let mut named = 0;
    for row in PAGE.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| tests |")) {
        // What stands between backticks in the last column is every other piece.
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = column.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(tests.contains(name), "there is no test `{name}`: {row}");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} names were found");
}
