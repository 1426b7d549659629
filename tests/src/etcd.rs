//! etcd beneath an API server.

use crate::{Namespace, Process, namespace::run_with_input, programs};
use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::path::Path;

const CLIENTS: &str = "http://127.0.0.1:2379";

pub(crate) fn start(namespace: &Namespace, folder: &Path) -> Result<Process> {
    let data = folder.join("etcd").display().to_string();
    namespace.spawn(
        "etcd",
        &programs::kubernetes("etcd")?,
        &[
            "--data-dir",
            &data,
            "--unsafe-no-fsync",
            "--listen-client-urls",
            CLIENTS,
            "--advertise-client-urls",
            CLIENTS,
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
        ],
    )
}

/// Forgets all revisions but the present one.
pub(crate) fn compact(namespace: &Namespace) -> Result<()> {
    // Whatever is asked, the answer says where it is; the key is one zero byte.
    let now = ask(namespace, "range", &json!({"key": "AA=="}))?;
    let revision = now["header"]["revision"].as_str().with_context(|| format!("no revision: {now}"))?;
    let done = ask(namespace, "compaction", &json!({"revision": revision, "physical": true}))?;
    ensure!(done["header"]["revision"].is_string(), "{done}");
    Ok(())
}

/// Puts objects where the API server looks for them, by their keys, and returns the revision of the last.
pub(crate) fn put_all(namespace: &Namespace, objects: &[(String, Value)]) -> Result<u64> {
    /// `--max-txn-ops`
    const AT_ONCE: usize = 128;
    let config: Vec<String> = objects
        .chunks(AT_ONCE)
        .map(|chunk| {
            let puts: Vec<Value> = chunk
                .iter()
                .map(|(key, object)| {
                    let value = BASE64_STANDARD.encode(object.to_string());
                    json!({"requestPut": {"key": BASE64_STANDARD.encode(key), "value": value}})
                })
                .collect();
            // A JSON string is quoted as curl wants it.
            let body = Value::String(json!({"success": puts}).to_string());
            format!(
                "url = \"{CLIENTS}/v3/kv/txn\"\nfail-with-body\nsilent\nshow-error\nmax-time = 20\n\
                 write-out = \"\\n\"\ndata-binary = {body}\n"
            )
        })
        .collect();
    let mut curl = namespace.command("curl")?;
    curl.args(["--fail-early", "--config", "-"]);
    let answers = run_with_input(&mut curl, &config.join("next\n"))?;
    let last: Value = serde_json::from_str(answers.lines().last().context("no answer")?)?;
    let revision = last["header"]["revision"].as_str().with_context(|| format!("no revision: {last}"))?;
    Ok(revision.parse()?)
}

/// By its gRPC gateway.
fn ask(namespace: &Namespace, what: &str, body: &Value) -> Result<Value> {
    let mut curl = namespace.command("curl")?;
    curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "20", "--data-binary", "@-"]);
    curl.arg(format!("{CLIENTS}/v3/kv/{what}"));
    Ok(serde_json::from_str(&run_with_input(&mut curl, &body.to_string())?)?)
}
