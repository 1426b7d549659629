//! The daemon's log: to stderr, one line a record, `RUST_LOG` chooses what.

use aya_log::EbpfLogger;
use std::{
    borrow::Cow,
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _},
    time::Duration,
};
use tokio::time;
use tracing::warn;
use tracing_subscriber::EnvFilter;

pub(super) fn start() {
    let (filter, unusable) = filter(env::var_os(EnvFilter::DEFAULT_ENV).as_deref());
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .init();
    if let Some(why) = unusable {
        warn!("{}: {why}; logging at info; write a level, such as debug", EnvFilter::DEFAULT_ENV);
    }
}

/// kube reports every attempt of a request as an error; the source tells each trouble once, and what to do about it.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// What to log, by the value of the variable; and why not as it says, if that makes no sense.
fn filter(said: Option<&OsStr>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(format!("info,{QUIET}"));
    match said.map(|said| (said, said.to_str())) {
        None => (default(), None),
        // Set but empty, as manifests of pods do it: nothing was said.
        Some((_, Some(said))) if said.trim().is_empty() => (default(), None),
        Some((_, Some(said))) => match EnvFilter::try_new(with_quiet(said)) {
            Ok(filter) => (filter, None),
            Err(error) => (default(), Some(format!("`{}`: {error}", said.escape_debug()))),
        },
        Some((said, None)) => (default(), Some(format!("{said:?} is not UTF-8"))),
    }
}

/// What the eBPF programs log.
pub(super) struct ProgramLog {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl ProgramLog {
    pub(super) const fn new(logger: EbpfLogger<&'static dyn log::Log>) -> Self {
        Self { logger }
    }

    /// Hands on what the programs log, for as long as it is polled. At intervals: it is for development, and waiting
    /// for the ring to become readable takes `unsafe` code.
    pub(super) async fn follow(mut self) {
        let mut flush = time::interval(Duration::from_millis(100));
        loop {
            flush.tick().await;
            self.logger.flush();
        }
    }
}

/// Unless the operator asks for it by name.
fn with_quiet(said: &str) -> Cow<'_, str> {
    if said.contains("kube_") { said.into() } else { format!("{said},{QUIET}").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_variable_cannot_mean_is_told_and_costs_no_log() {
        for (said, filtered, is_usable) in [
            (None, "kube_runtime=off,kube_client=off,info", true),
            (Some(""), "kube_runtime=off,kube_client=off,info", true),
            (Some(" "), "kube_runtime=off,kube_client=off,info", true),
            (Some("debug"), "kube_runtime=off,kube_client=off,debug", true),
            (Some("kube_client=debug"), "kube_client=debug", true),
            (Some("mcs_proxy=debug,warn"), "kube_runtime=off,kube_client=off,mcs_proxy=debug,warn", true),
            (Some("a=b=c"), "kube_runtime=off,kube_client=off,info", false),
        ] {
            let (filter, unusable) = filter(said.map(OsStr::new));
            assert_eq!(filter.to_string(), filtered, "{said:?}");
            assert_eq!(unusable.is_none(), is_usable, "{said:?}: {unusable:?}");
        }
    }
}
