//! The bill of materials, as CycloneDX 1.5 has it: every crate in the binary and in its eBPF programs, with version,
//! licence, and the checksum of its sources.

use super::{Architecture, VERSION, archive::rfc3339};
use crate::run::{cargo, command};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Cargo's word for what a crate depends on when it runs; build scripts and tests are not in the binary.
const AT_RUN_TIME: &str = "normal,no-proc-macro";

pub(super) fn write(workspace: &Path, arch: Architecture, created: u64) -> Result<String> {
    let mut crates = tree(workspace, &["--package", "mcs-proxy", "--target", arch.target()])?;
    // The object that is embedded is built by itself.
    crates.append(&mut tree(
        workspace,
        &["--package", "mcs-proxy-ebpf", "--features", "programs", "--target", "all"],
    )?);
    let lock = fs::read_to_string(workspace.join("Cargo.lock")).context("Cargo.lock")?;
    Ok(serde_json::to_string_pretty(&bill(&crates, &checksums(&lock), created))? + "\n")
}

/// (name, version, licence)
type Crates = BTreeSet<(String, String, String)>;

fn tree(workspace: &Path, what: &[&str]) -> Result<Crates> {
    let output = command(cargo())
        .current_dir(workspace)
        .args(["tree", "--locked", "--edges", AT_RUN_TIME, "--prefix", "none", "--format", "{p}|{l}"])
        .args(what)
        .output()?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| parse(line).with_context(|| format!("cargo tree says {line:?}")))
        .collect()
}

/// `anyhow v1.0.104|MIT OR Apache-2.0 (*)`, `mcs-proxy v0.1.0 (/path)|MIT OR Apache-2.0`
fn parse(line: &str) -> Option<(String, String, String)> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let licence = licence.trim_end_matches(" (*)").replace('/', " OR ");
    Some((name.to_owned(), version.to_owned(), licence))
}

/// By name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let value = |package: &'_ str, key: &str| -> Option<(usize, usize)> {
        let start = package.find(&format!("\n{key} = \""))? + key.len() + 5;
        Some((start, start + package[start..].find('"')?))
    };
    let packages = lock.split("\n[[package]]").skip(1);
    packages
        .filter_map(|package| {
            let get = |key| value(package, key).map(|(start, end)| &package[start..end]);
            Some(((get("name")?, get("version")?), get("checksum")?))
        })
        .collect()
}

fn bill(crates: &Crates, checksums: &BTreeMap<(&str, &str), &str>, created: u64) -> Value {
    let components: Vec<_> = crates
        .iter()
        .filter(|(name, ..)| name != "mcs-proxy")
        .map(|(name, version, licence)| {
            let url = format!("pkg:cargo/{name}@{version}");
            let mut component = json!({
                "type": "library",
                "bom-ref": url,
                "name": name,
                "version": version,
                "purl": url,
                "licenses": [{"expression": licence}],
            });
            if let Some(checksum) = checksums.get(&(name.as_str(), version.as_str())) {
                component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
            }
            component
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": rfc3339(created),
            "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/mcs-proxy@{VERSION}"),
                "name": "mcs-proxy",
                "version": VERSION,
                "licenses": [{"expression": env!("CARGO_PKG_LICENSE")}],
            },
        },
        "components": components,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_has_what_the_binary_and_the_programs_have_with_checksums() {
        let workspace = crate::workspace();
        let bill: Value = serde_json::from_str(&write(&workspace, Architecture::OURS, 0).unwrap()).unwrap();
        let components = bill["components"].as_array().unwrap();
        let named =
            |name: &str| components.iter().filter(|component| component["name"] == name).collect::<Vec<_>>();
        for name in ["aya", "kube", "ring", "aya-ebpf", "mcs-proxy-ebpf"] {
            assert_eq!(named(name).len(), 1, "{name}");
        }
        // Those of tests, and of building.
        for name in ["proptest", "mcs-proxy-tests", "xtask", "cc", "mcs-proxy"] {
            assert!(named(name).is_empty(), "{name}");
        }
        assert_eq!(named("ring")[0]["hashes"][0]["content"].as_str().unwrap().len(), 64);
        for component in components {
            let own = component["name"] == "mcs-proxy-ebpf";
            assert_eq!(component["hashes"].is_null(), own, "{component}");
            assert_ne!(component["licenses"][0]["expression"], "", "{component}");
        }
    }

    #[test]
    fn lines_of_cargo_tree_are_read() {
        let crate_of = |line| parse(line).unwrap();
        let mit = "MIT OR Apache-2.0".to_owned();
        assert_eq!(
            crate_of("anyhow v1.0.104|MIT OR Apache-2.0 (*)"),
            ("anyhow".into(), "1.0.104".into(), mit.clone())
        );
        assert_eq!(crate_of("x v0.1.0 (/a/b)|MIT/Apache-2.0"), ("x".into(), "0.1.0".into(), mit));
        assert_eq!(parse("surprising"), None);
    }
}
