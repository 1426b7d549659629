//! `mcs-proxy mode`.

use crate::{
    config::Places,
    daemon::socket::{self, Request, Response},
    model::NodeMode,
    observe::mode,
};
use anyhow::{Context as _, bail};

/// Orders a mode on this node, if one is named, and tells which one holds. Without a daemon the order waits for the next.
///
/// # Errors
/// What is ordered cannot be noted.
pub fn mode(places: &Places, order: Option<NodeMode>) -> anyhow::Result<String> {
    let run_dir = places.run_dir();
    match socket::ask(&run_dir, &Request::Mode(order)) {
        Ok(Response::Mode(modes)) => return Ok(format!("{modes}\n")),
        Ok(Response::Error(error)) => bail!("{error}"),
        Ok(other) => bail!("the daemon is of another version: {other:?}"),
        Err(error) => eprintln!("mcs-proxy: no daemon answers at {}: {error}", run_dir.display()),
    }
    let failed = || run_dir.display().to_string();
    if let Some(order) = order {
        mode::write(&run_dir, order).with_context(failed)?;
    }
    let word = match mode::read(&run_dir).with_context(failed)? {
        NodeMode::Auto => "what the settings say",
        NodeMode::Active => "active",
        NodeMode::Drain => "drain",
        NodeMode::Bypass => "bypass",
    };
    Ok(format!("{word}, once a daemon runs; until then all goes on as it is\n"))
}
