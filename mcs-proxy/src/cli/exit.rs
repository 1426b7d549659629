//! How a command that failed ends: see the help of the command line.

use crate::{
    daemon::socket::AskError,
    dataplane::{flows::FlowsError, pins::PinsError},
    observe::line::Level,
};
use std::process::ExitCode;

const FAILED: u8 = 1;
const NOTHING_PINNED: u8 = 3;
const DENIED: u8 = 4;
const NOT_WELL: u8 = 5;
const UNHEARD: u8 = 6;

/// How a command ends that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Well,
    /// `check` and `status`: something that they looked at failed.
    NotWell,
    /// `mode`: no daemon has heard it.
    Unheard,
}

impl From<Level> for Ending {
    fn from(worst: Level) -> Self {
        match worst {
            Level::Ok | Level::Warning => Self::Well,
            Level::Failed => Self::NotWell,
        }
    }
}

/// The exit code of a command that was carried out.
#[must_use]
pub fn code_of(ending: Ending) -> ExitCode {
    match ending {
        Ending::Well => ExitCode::SUCCESS,
        Ending::NotWell => NOT_WELL.into(),
        Ending::Unheard => UNHEARD.into(),
    }
}

/// The exit code that tells of this error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    number(error).into()
}

fn number(error: &anyhow::Error) -> u8 {
    let of_pins = |error: &PinsError| match error {
        PinsError::NothingPinned { .. } => NOTHING_PINNED,
        PinsError::Denied { .. } => DENIED,
        PinsError::NotBpffs { .. }
        | PinsError::ReadOnly { .. }
        | PinsError::Directory { .. }
        | PinsError::Read { .. }
        | PinsError::Sys { .. } => FAILED,
    };
    // An error that passes another one on says what that says, so that it is not among its own sources.
    if let Some(error) = error.downcast_ref::<PinsError>() {
        return of_pins(error);
    }
    if let Some(AskError::Denied { .. }) = error.downcast_ref::<AskError>() {
        return DENIED;
    }
    match error.downcast_ref::<FlowsError>() {
        Some(FlowsError::Pins(error)) => of_pins(error),
        Some(
            FlowsError::Clock(_) | FlowsError::Scan { .. } | FlowsError::Remove { .. } | FlowsError::Hz(_),
        )
        | None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_denied_are_told_from_other_failures() {
        let nothing = || PinsError::NothingPinned { path: "/sys/fs/bpf/mcs-proxy/v1".into() };
        let denied = || PinsError::Denied { path: "/sys/fs/bpf/mcs-proxy/v1/flows".into() };
        for (error, code) in [
            (anyhow::Error::new(nothing()), NOTHING_PINNED),
            (FlowsError::Pins(nothing()).into(), NOTHING_PINNED),
            (anyhow::Error::new(denied()).context("stats"), DENIED),
            (FlowsError::Pins(denied()).into(), DENIED),
            (anyhow::Error::new(AskError::Denied { path: "/run/mcs-proxy".into() }).context("mode"), DENIED),
            (anyhow::anyhow!("something else"), FAILED),
        ] {
            assert_eq!(number(&error), code, "{error:#}");
        }
    }
}
