//! What the commands print as JSON is what `deploy/schemas` says.

use crate::{
    stage::{Stage, v4, v6},
    watcher::Watcher,
};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::client::{self, Connection};
use serde_json::Value;
use std::{env, fs, path::PathBuf};

const WRITE: &str = "MCS_PROXY_WRITE_SCHEMAS";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../deploy/schemas/{name}.json"))
}

#[test]
fn the_schemas_are_those_of_the_types() -> Result<()> {
    for (name, schema) in mcs_proxy::cli::schemas() {
        let text = serde_json::to_string_pretty(&schema)? + "\n";
        if env::var_os(WRITE).is_some() {
            fs::write(file(name), &text)?;
        }
        let kept = fs::read_to_string(file(name)).with_context(|| file(name).display().to_string())?;
        ensure!(kept == text, "deploy/schemas/{name}.json is out of date: run this test with {WRITE}=1");
    }
    Ok(())
}

/// What does not belong is refused, so that a schema which allows everything does not pass for one.
fn validate(name: &str, value: &Value) -> Result<()> {
    let schema: Value = serde_json::from_str(&fs::read_to_string(file(name))?)?;
    let validator = jsonschema::validator_for(&schema)?;
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(errors.is_empty(), "{name}: {errors:#?}");
    let mut broken = value.clone();
    let row = if broken.is_array() { &mut broken[0] } else { &mut broken };
    let fields: Vec<String> = row.as_object().context("no object")?.keys().cloned().collect();
    ensure!(!fields.is_empty(), "{name}: {value}");
    for field in fields {
        row[&field] = Value::Null;
    }
    ensure!(!validator.is_valid(&broken), "{name}: everything is valid");
    Ok(())
}

#[test]
fn what_every_command_prints_is_valid() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut open = Connection::open(&stage.client.namespace, v4()?)?;
    open.ask()?;
    client::udp(&stage.client.namespace, v6()?, 1)?;
    // With a daemon, and without one.
    for _ in 0..2 {
        for (name, arguments) in [
            ("services", &["services"][..]),
            ("backends", &["backends"]),
            ("connections", &["connections"]),
            ("stats", &["stats"]),
            ("stats", &["stats", "--rate", "--interval", "200ms"]),
            ("explain", &["explain", "default/serve", "--client", "10.12.0.9"]),
            ("cleanup", &["cleanup", "--dry-run"]),
        ] {
            let text = stage.daemon.show(&[arguments, &["-o", "json"]].concat())?;
            let value: Value = serde_json::from_str(&text).with_context(|| text)?;
            validate(name, &value)?;
            let yaml = stage.daemon.show(&[arguments, &["-o", "yaml"]].concat())?;
            ensure!(yaml.contains(':') && !yaml.starts_with(['[', '{']), "{yaml}");
        }
        let watch = Watcher::start(&stage.daemon, &["services", "--watch", "-o", "json"])?;
        validate("services-watch", &watch.json()?)?;
        let listener = Watcher::listen(&stage.daemon, &["-o", "json"])?;
        client::http(&stage.client.namespace, v4()?, 1)?;
        for line in listener.until(|line| line["event"] == "closed")? {
            validate("monitor", &line)?;
        }
        stage.daemon.crash()?;
    }
    validate("monitor", &serde_json::json!({ "lost": 3 }))
}
