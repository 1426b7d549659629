//! The commands that look at what the maps hold, whether a daemon runs or not.

mod align;
mod backends;
mod check;
mod cleanup;
mod completion;
mod connections;
mod drained;
mod exit;
mod explain;
mod filter;
mod loads;
mod mode;
mod monitor;
mod output;
mod plugin;
mod report;
mod schema;
mod services;
mod stats;
mod status;
mod top;
mod uninstall;
mod view;
mod watch;

use crate::config::{Connections, List, Output, Places, Services, Stats};
use anyhow::Context as _;
use serde::Serialize;
use std::{thread, time::Instant};
use view::View;

pub use check::check;
pub use cleanup::cleanup;
pub use completion::completion;
pub use exit::{Ending, code_of, exit_code};
pub use explain::explain;
pub use mode::mode;
pub use monitor::monitor;
pub use output::print;
pub use plugin::{is_plugin, plugin};
pub use schema::schemas;
pub use status::status;
pub use top::top;
pub use uninstall::uninstall;

/// `mcs-proxy services`: prints, once or until interrupted.
///
/// # Errors
/// Nothing is pinned, or what is pinned cannot be read.
pub fn services(places: &Places, asked: &Services) -> anyhow::Result<()> {
    if asked.watch {
        return watch::watch(places, asked);
    }
    let view = View::read(places)?;
    let rows = services::rows(&view, asked.list.service.as_deref());
    print(&services::listed(&rows, places, &asked.list, &view)?).map(drop)
}

/// `mcs-proxy backends`.
///
/// # Errors
/// As [`services`].
pub fn backends(places: &Places, list: &List) -> anyhow::Result<String> {
    let rows = backends::rows(&View::read(places)?, list.service.as_deref());
    render(&rows, list, backends::table, ("backends", "see what `mcs-proxy services` says of it"))
}

/// `mcs-proxy connections`.
///
/// # Errors
/// As [`services`].
pub fn connections(places: &Places, asked: &Connections) -> anyhow::Result<String> {
    let rows = connections::rows(&View::read(places)?, asked);
    output::whole(&rows, asked.output, |rows| connections::table(rows, asked))
}

/// `mcs-proxy stats`: prints, once or until interrupted.
///
/// # Errors
/// As [`services`].
pub fn stats(places: &Places, asked: &Stats) -> anyhow::Result<()> {
    let service = asked.service.as_deref();
    let interval = asked.interval.into();
    let mut printed = 0;
    let mut last = None;
    loop {
        let (now, looked) = (View::read_counters(places)?, Instant::now());
        let stats = match &last {
            Some((before, then)) => {
                stats::rates(before, &now, looked.duration_since(*then).as_secs_f64(), service)
            }
            None if asked.rate => {
                last = Some((now, looked));
                thread::sleep(interval);
                continue;
            }
            None => stats::totals(&now, service),
        };
        last = asked.rate.then_some((now, looked));
        printed += 1;
        let text = if asked.count == 1 {
            output::whole(&stats, asked.output, stats::table)?
        } else {
            output::one_of_many(&stats, asked.output, |stats| stats::table(stats) + "\n")?
        };
        if print(&text)?.is_break() || (asked.count != 0 && printed >= asked.count) {
            return Ok(());
        }
        thread::sleep(interval);
    }
}

/// `why_none` is what to think of it if the Service that was asked for has no rows.
///
/// JSON and YAML are lists of the same objects, whose fields are documented at their types.
fn render<T: Serialize>(
    rows: &Vec<T>,
    List { service, output }: &List,
    table: impl FnOnce(&[T]) -> String,
    (what, why_none): (&str, &str),
) -> anyhow::Result<String> {
    Ok(match (output, service) {
        (Output::Table, Some(service)) if rows.is_empty() => {
            format!("No {what} of Service {service}: {why_none}.\n")
        }
        (Output::Table, _) => table(rows),
        (Output::Json, _) => serde_json::to_string_pretty(rows).context("cannot write JSON")? + "\n",
        (Output::Yaml, _) => serde_saphyr::to_string(rows).context("cannot write YAML")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_has_nothing_is_told_from_a_node_that_has_nothing() {
        let said = |service: Option<&str>, output| {
            let list = List { service: service.map(str::to_owned), output };
            render(&Vec::<u32>::new(), &list, |_| "No backends.\n".into(), ("backends", "see elsewhere"))
                .unwrap()
        };
        assert_eq!(said(None, Output::Table), "No backends.\n");
        assert_eq!(said(Some("a/b"), Output::Table), "No backends of Service a/b: see elsewhere.\n");
        assert_eq!(said(Some("a/b"), Output::Json), "[]\n");
        assert_eq!(said(Some("a/b"), Output::Yaml).trim(), "[]");
    }
}
