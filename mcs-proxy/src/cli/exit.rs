//! How a command that failed ends: see the help of the command line.

use crate::{
    dataplane::{flows::FlowsError, pins::PinsError},
    observe::line::Level,
};
use std::process::ExitCode;

const FAILED: u8 = 1;
const NOTHING_PINNED: u8 = 3;
const DENIED: u8 = 4;
const NOT_WELL: u8 = 5;

/// The exit code of a command that was carried out: `check` and `status` may have found that something failed.
#[must_use]
pub fn code_of(level: Level) -> ExitCode {
    match level {
        Level::Ok | Level::Warning => ExitCode::SUCCESS,
        Level::Failed => NOT_WELL.into(),
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
            (anyhow::anyhow!("something else"), FAILED),
        ] {
            assert_eq!(number(&error), code, "{error:#}");
        }
    }
}
