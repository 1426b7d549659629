//! A real Prometheus scrapes a daemon under traffic; the alerts' and the dashboard's queries are put to it.

use crate::stage::{Stage, address, until, vip};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Namespace, Process, client,
    http::{self, percent_encoded},
};
use serde_json::Value;
use std::{fs, net::SocketAddr, path::Path, process::Command};

const LISTEN: &str = "127.0.0.1:19090";

fn monitoring(file: &str) -> String {
    format!("{}/../deploy/monitoring/{file}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn promtool_accepts_the_alerts_and_their_unit_tests_pass() -> Result<()> {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]] {
        let [what, rules, file] = arguments;
        let output = Command::new("promtool").args([what, rules, &monitoring(file)]).output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    let tested = fs::read_to_string(monitoring("alerts-test.yaml"))?;
    for (alert, _) in alerts()? {
        ensure!(
            tested.contains(&format!("alertname: {alert}\n    exp_alerts")),
            "no unit test raises {alert}"
        );
    }
    Ok(())
}

/// The alerts with what they ask.
fn alerts() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(monitoring("alerts.yaml"))?;
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some(alert) = line.strip_prefix("- alert: ") else { continue };
        let mut expression =
            lines.next().and_then(|line| line.strip_prefix("expr: ")).context("no expr")?.to_owned();
        if expression == ">-" {
            expression.clear();
            while let Some(line) = lines.next_if(|line| !line.starts_with("for: ")) {
                expression += line;
                expression.push(' ');
            }
        }
        found.push((alert.to_owned(), expression));
    }
    Ok(found)
}

/// The dashboard's queries, with its variables as for everything.
fn panels() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(monitoring("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let queries = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        panel["targets"].as_array().into_iter().flatten().map(move |target| {
            let mut query = target["expr"].as_str().unwrap_or_default().to_owned();
            for (variable, value) in
                [("$__rate_interval", "1m"), ("$instance", ".*"), ("$namespace", ".*"), ("$service", ".*")]
            {
                query = query.replace(variable, value);
            }
            (title.clone(), query)
        })
    });
    Ok(queries.collect())
}

struct Prometheus {
    _process: Process,
    namespace: Namespace,
}

impl Prometheus {
    fn start(stage: &Stage) -> Result<Self> {
        let folder = stage.world.folder("prometheus")?;
        let config = folder.join("prometheus.yaml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
                 rule_files: ['{}']\n\
                 scrape_configs:\n- job_name: mcs-proxy\n  static_configs: [{{targets: ['{}']}}]\n",
                monitoring("alerts.yaml"),
                address()
            ),
        )?;
        let namespace = stage.node.namespace.clone();
        let process = namespace.spawn(
            "prometheus",
            Path::new("prometheus"),
            &[
                &format!("--config.file={}", config.display()),
                &format!("--storage.tsdb.path={}", folder.join("data").display()),
                &format!("--web.listen-address={LISTEN}"),
            ],
        )?;
        let prometheus = Self { _process: process, namespace };
        until("Prometheus is ready", || {
            Ok(prometheus.get("/-/ready").is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(prometheus)
    }

    fn get(&self, path: &str) -> Result<http::Answer> {
        http::get(&self.namespace, LISTEN.parse::<SocketAddr>()?, path)
    }

    /// How many rows a query has.
    fn query(&self, query: &str) -> Result<usize> {
        let answer = self.get(&format!("/api/v1/query?query={}", percent_encoded(query)))?;
        let json: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
        ensure!(json["status"] == "success", "{query}: {json}");
        Ok(json["data"]["result"].as_array().context("no result")?.len())
    }
}

#[test]
fn a_real_prometheus_answers_every_query_of_alerts_and_dashboard_from_a_daemon_under_traffic() -> Result<()> {
    let stage = Stage::new(&["--flow-scan-interval", "1s"])?;
    let mut open = client::Connection::open(&stage.client.namespace, vip())?;
    open.ask()?;
    let prometheus = Prometheus::start(&stage)?;
    let mut changes = 0;
    let mut churn = || -> Result<()> {
        client::http(&stage.client.namespace, vip(), 4)?;
        changes += 1;
        stage.manifests.service(&crate::stage::service("other", &format!("10.13.0.{}", 2 + changes % 2))?)
    };
    for (alert, expression) in alerts()? {
        // Healthy as it is, the daemon raises none: what is asked is whether there are rows to compare.
        let rows = compared(&expression);
        until(&format!("rows for {alert}: {rows}"), || {
            churn()?;
            Ok(prometheus.query(&rows)? > 0)
        })?;
        ensure!(prometheus.query(&expression)? == 0, "{alert} is raised: {expression}");
    }
    for (title, query) in panels()? {
        until(&format!("rows for the panel {title}: {query}"), || {
            churn()?;
            Ok(prometheus.query(&query)? > 0)
        })?;
    }
    let rules: Value = serde_json::from_str(&prometheus.get("/api/v1/rules")?.body)?;
    ensure!(
        rules["data"]["groups"][0]["rules"].as_array().map(Vec::len) == Some(alerts()?.len()),
        "{rules:#}"
    );
    open.ask()?;
    Ok(())
}

/// The query with comparisons that keep every row.
fn compared(expression: &str) -> String {
    [" == ", " > "]
        .iter()
        .fold(expression.to_owned(), |text, sign| text.replace(sign, &format!("{sign}bool ")))
}
