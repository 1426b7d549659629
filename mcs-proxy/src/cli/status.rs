//! `mcs-proxy status`.

use super::{align::align, report};
use crate::{
    config::{Output, Places},
    daemon::socket::{self, AskError, Request, Response},
    dataplane::pins::{PinDir, Pins, PinsError},
    model::NodeMode,
    observe::{
        catalog::Catalog,
        drift::Drift,
        health, interfaces,
        inventory::Inventory,
        line::{Level, Line, worst},
        mode,
        status::{Status, age, drift_line},
    },
};
use anyhow::{Context as _, bail};
use std::time::Duration;

/// What the daemon says of itself, or what the pins tell of it if none answers; and how bad it is.
///
/// # Errors
/// The daemon may not be asked, or is of another version.
pub fn status(places: &Places, output: Output) -> anyhow::Result<(String, Level)> {
    let run_dir = places.run_dir();
    let status = match socket::ask(&run_dir, &Request::Status) {
        Ok(Response::Status(status)) => *status,
        Ok(Response::Error(error)) => bail!("{error}"),
        Ok(other) => bail!("the daemon is of another version: {other:?}"),
        Err(denied @ AskError::Denied { .. }) => return Err(denied.into()),
        Err(absent @ AskError::NoAnswer { .. }) => without_daemon(places, &absent.to_string()),
    };
    let worst = worst(&status.lines);
    let text = match output {
        Output::Table => table(&status),
        Output::Json => serde_json::to_string_pretty(&status).context("cannot write JSON")? + "\n",
        Output::Yaml => serde_saphyr::to_string(&status).context("cannot write YAML")?,
    };
    Ok((text, worst))
}

fn without_daemon(places: &Places, why: &str) -> Status {
    let catalog = Catalog::read(&places.run_dir()).unwrap_or_default();
    let mut lines = vec![Line::failed(
        "daemon",
        why,
        "start it, or see its log (`kubectl logs`, `journalctl`); what is pinned goes on forwarding meanwhile",
    )];
    let drift = match look(places, &catalog) {
        Ok((drift, found)) => {
            lines.extend(found);
            lines.push(drift_line(Some(&drift)));
            Some(drift)
        }
        Err(failure) => {
            lines.push(Line::failed(
                "pins",
                failure.to_string(),
                "kube-proxy serves every Service that it knows; a daemon that starts pins all anew",
            ));
            None
        }
    };
    let node_mode = mode::read(&places.run_dir()).unwrap_or(NodeMode::Auto);
    if node_mode != NodeMode::Auto {
        lines.push(Line::warning(
            "mode",
            "a mode was ordered on this node",
            "`mcs-proxy mode auto` returns to the settings",
        ));
    }
    let silent = interfaces::read(&places.run_dir()).unwrap_or_default();
    lines.extend(silent.iter().map(|silent| {
        Line::warning("interfaces", silent.to_string(), "as the last daemon saw it; see `bpftool net`")
    }));
    let unanswered = health::read(&places.run_dir()).unwrap_or_default();
    lines.extend(unanswered.iter().map(|one| {
        Line::warning(
            "answers",
            one.to_string(),
            "as the last daemon saw it; the next one goes on from there",
        )
    }));
    Status { told_by: "pins".into(), cluster: catalog.cluster, lines, drift, ..Status::default() }
}

fn look(places: &Places, catalog: &Catalog) -> Result<(Drift, Vec<Line>), PinsError> {
    let pins = Pins::open(&PinDir::new(&places.pin_dir))?;
    let dump = pins.frontends()?;
    let mut flows = 0_u64;
    pins.for_each_flow(|_, _| flows += 1)?;
    let lines = vec![
        Line::ok("pins", format!("{} frontends", dump.frontends.len())),
        Line::ok("flows", format!("{flows} in the maps")),
    ];
    Ok((Drift::between(&Inventory::of(catalog), &dump), lines))
}

fn table(status: &Status) -> String {
    let mut text = report::table(&status.lines);
    if let Some(drift) = &status.drift {
        for object in &drift.objects {
            let service = if object.service.is_empty() { "-" } else { &object.service };
            text += &format!(
                "  DRIFT: {} of Service {service}: {}: {}\n",
                object.frontend, object.what, object.says
            );
        }
    }
    let cell = |text: &str| text.to_owned();
    if !status.sources.is_empty() {
        let mut rows = vec![["Kind", "Listed", "Events", "Last"].map(cell).to_vec()];
        rows.extend(status.sources.iter().map(|source| {
            vec![
                source.kind.clone(),
                if source.synced { "yes".into() } else { "no".into() },
                source.events.to_string(),
                source.last_event_seconds.map_or_else(|| "-".into(), |last| age(Duration::from_secs(last))),
            ]
        }));
        text += "\n";
        text += &align(&rows);
    }
    if !status.maps.is_empty() {
        let mut rows = vec![["Map", "In use", "Capacity", "Raised by"].map(cell).to_vec()];
        rows.extend(status.maps.iter().map(|map| {
            vec![map.map.clone(), map.in_use.to_string(), map.capacity.to_string(), map.flag.clone()]
        }));
        text += "\n";
        text += &align(&rows);
    }
    text + "\n" + &report::summary(&status.lines)
}
