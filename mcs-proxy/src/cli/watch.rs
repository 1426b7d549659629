//! `mcs-proxy services --watch`: what changes, as it changes.

use super::{
    output::{in_place, one_of_many, print},
    services::{self, ServiceRow},
    view::View,
};
use crate::config::{Output, Places, Services};
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr, thread};

/// A line of `mcs-proxy services --watch -o json`, named as `kubectl get --watch --output-watch-events` names them.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Change<'a> {
    /// `ADDED`, also of what is there at first; `MODIFIED`: anything but a counter has changed; or `DELETED`.
    r#type: &'static str,
    /// As it is now; of what is deleted, as it was.
    service: &'a ServiceRow,
}

type Key = (IpAddr, u16, &'static str);

pub(super) fn watch(places: &Places, asked: &Services) -> anyhow::Result<()> {
    let service = asked.list.service.as_deref();
    let (mut known, mut shown) = (BTreeMap::<Key, ServiceRow>::new(), None);
    loop {
        let view = View::read(places)?;
        let rows = services::rows(&view, service);
        let next = match asked.list.output {
            Output::Table => {
                let table = services::listed(&rows, places, &asked.list, &view)?;
                if shown.as_ref() == Some(&table) {
                    std::ops::ControlFlow::Continue(())
                } else {
                    // The first one takes the whole screen.
                    let clear = if shown.is_none() { CLEAR } else { "" };
                    let text = in_place(&table);
                    shown = Some(table);
                    print(&format!("{}{text}", if text.starts_with('\x1b') { clear } else { "" }))?
                }
            }
            Output::Json | Output::Yaml => {
                let rows: BTreeMap<Key, ServiceRow> =
                    rows.into_iter().map(|row| ((row.vip, row.port, row.protocol), row)).collect();
                let text = changes(&known, &rows, asked.list.output)?;
                known = rows;
                print(&text)?
            }
        };
        if next.is_break() {
            return Ok(());
        }
        thread::sleep(asked.interval.into());
    }
}

const CLEAR: &str = "\x1b[2J";

fn changes(
    before: &BTreeMap<Key, ServiceRow>,
    now: &BTreeMap<Key, ServiceRow>,
    output: Output,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let gone = before.iter().filter(|(key, _)| !now.contains_key(key)).map(|(_, row)| ("DELETED", row));
    let there = now.iter().filter_map(|(key, row)| match before.get(key) {
        None => Some(("ADDED", row)),
        Some(earlier) if !earlier.is_alike(row) => Some(("MODIFIED", row)),
        Some(_) => None,
    });
    for (kind, service) in gone.chain(there) {
        text += &one_of_many(&Change { r#type: kind, service }, output, |_| String::new())?;
    }
    Ok(text)
}
