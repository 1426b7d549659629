//! How the commands print.

use crate::config::Output;
use anyhow::Context as _;
use serde::Serialize;
use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
};

/// Prints to standard output, at once, and says whether anybody reads on: `| head` does not, and that is no error.
///
/// # Errors
/// It cannot be written to.
pub fn print(text: &str) -> anyhow::Result<ControlFlow<()>> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// One object, for people or programs.
pub(super) fn whole<T: Serialize>(
    value: &T,
    output: Output,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => table(value),
        Output::Json => serde_json::to_string_pretty(value).context("cannot write JSON")? + "\n",
        Output::Yaml => serde_saphyr::to_string(value).context("cannot write YAML")?,
    })
}

/// One of a sequence of objects: JSON on a line of its own, YAML as a document of its own.
pub(super) fn one_of_many<T: Serialize>(
    value: &T,
    output: Output,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => table(value),
        Output::Json => serde_json::to_string(value).context("cannot write JSON")? + "\n",
        Output::Yaml => format!("---\n{}", serde_saphyr::to_string(value).context("cannot write YAML")?),
    })
}

/// A table in the place of the last one, on a terminal; else below it.
pub(super) fn in_place(table: &str) -> String {
    const HOME: &str = "\x1b[H";
    const TO_END_OF_LINE: &str = "\x1b[K";
    const TO_END_OF_SCREEN: &str = "\x1b[J";
    if !io::stdout().is_terminal() {
        return format!("{table}\n");
    }
    format!("{HOME}{}{TO_END_OF_SCREEN}", table.replace('\n', &format!("{TO_END_OF_LINE}\n")))
}
