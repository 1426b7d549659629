//! `mcs-proxy mode`.

use super::exit::Ending;
use crate::{
    config::Places,
    daemon::socket::{self, AskError, Request, Response},
    model::NodeMode,
    observe::mode,
};
use anyhow::{Context as _, bail};
use std::io;

/// Orders a mode on this node, if one is named, and tells which one holds. Without a daemon the order waits for the next,
/// which is no success: nothing drains until then.
///
/// # Errors
/// The daemon may not be asked, or what is ordered cannot be noted.
pub fn mode(places: &Places, order: Option<NodeMode>) -> anyhow::Result<(String, Ending)> {
    let run_dir = places.run_dir();
    let absent = match socket::ask(&run_dir, &Request::Mode(order)) {
        Ok(Response::Mode(modes)) => return Ok((format!("{modes}\n"), Ending::Well)),
        Ok(Response::Error(error)) => bail!("{error}"),
        Ok(other) => bail!("the daemon is of another version: {other:?}"),
        Err(denied @ AskError::Denied { .. }) => return Err(denied.into()),
        Err(absent @ AskError::NoAnswer { .. }) => absent,
    };
    let failed = || run_dir.display().to_string();
    let done = match order {
        None => "this is what was ordered on this node, and holds once a daemon is started",
        Some(order) => {
            mode::write(&run_dir, order).map_err(|error| refused(&run_dir, error)).with_context(failed)?;
            "the order is noted, and holds once a daemon is started"
        }
    };
    let word = match mode::read(&run_dir).with_context(failed)? {
        NodeMode::Auto => "what the settings say",
        NodeMode::Active => "active",
        NodeMode::Drain => "drain",
        NodeMode::Bypass => "bypass",
    };
    eprintln!(
        "mcs-proxy: warning: {absent}; {done}; until then nothing changes: what is pinned takes new flows"
    );
    Ok((format!("{word}, once a daemon runs; until then all goes on as it is\n"), Ending::Unheard))
}

fn refused(run_dir: &std::path::Path, error: io::Error) -> anyhow::Error {
    match AskError::of(run_dir.join(mode::FILE), error) {
        denied @ AskError::Denied { .. } => denied.into(),
        AskError::NoAnswer { source, .. } => source.into(),
    }
}
