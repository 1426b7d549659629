//! The commands that look at what the maps hold, whether a daemon runs or not.

mod align;
mod backends;
mod check;
mod cleanup;
mod connections;
mod explain;
mod mode;
mod report;
mod services;
mod status;
mod uninstall;
mod view;

use crate::config::{List, Output, Places};
use anyhow::Context as _;
use serde::Serialize;
use view::View;

pub use check::check;
pub use cleanup::cleanup;
pub use explain::explain;
pub use mode::mode;
pub use status::status;
pub use uninstall::uninstall;

/// `mcs-proxy services`.
///
/// # Errors
/// Nothing is pinned, or what is pinned cannot be read.
pub fn services(places: &Places, list: &List) -> anyhow::Result<String> {
    let view = View::read(places)?;
    let rows = services::rows(&view, list.service.as_deref());
    let none = "it does not exist, is not opted in (annotate it with mcs-proxy.io/enabled: \"true\") or has no \
                ClusterIP or port";
    let table = |rows: &[_]| services::table(rows) + &services::warnings(&view.silent, &view.unanswered);
    render(&rows, list, table, ("frontends", none))
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
pub fn connections(places: &Places, list: &List) -> anyhow::Result<String> {
    let rows = connections::rows(&View::read(places)?, list.service.as_deref());
    render(&rows, list, connections::table, ("flows", "there are none now"))
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
            render(&Vec::<u32>::new(), &list, |_| "No flows.\n".into(), ("flows", "there are none now"))
                .unwrap()
        };
        assert_eq!(said(None, Output::Table), "No flows.\n");
        assert_eq!(said(Some("a/b"), Output::Table), "No flows of Service a/b: there are none now.\n");
        assert_eq!(said(Some("a/b"), Output::Json), "[]\n");
        assert_eq!(said(Some("a/b"), Output::Yaml).trim(), "[]");
    }
}
