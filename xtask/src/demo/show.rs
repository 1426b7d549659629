//! What a person sees of the demo.

use mcs_proxy_tests::client::Tally;
use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write, stderr, stdout},
    net::IpAddr,
};

/// How much of a command's output is shown.
const LINES: usize = 10;
/// The longest bar of a tally.
const WIDTH: u32 = 40;

/// Where it goes: standard output, or standard error when standard output is for a program.
#[derive(Debug)]
pub(crate) struct Show {
    to_stderr: bool,
    live: bool,
}

impl Show {
    pub(crate) fn new(to_stderr: bool) -> Self {
        let live = if to_stderr { stderr().is_terminal() } else { stdout().is_terminal() };
        Self { to_stderr, live }
    }

    pub(crate) fn line(&self, text: impl AsRef<str>) {
        self.write(&format!("{}\n", text.as_ref()));
    }

    pub(crate) fn heading(&self, text: &str) {
        let (bold, plain) = if self.live { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(format!("\n{bold}== {text}{plain}"));
    }

    /// What a command prints, under the command.
    pub(crate) fn command(&self, command: &str, output: &str) {
        self.line(format!("\n  $ {command}"));
        for line in output.lines().take(LINES) {
            self.line(format!("  {line}"));
        }
        let more = output.lines().count().saturating_sub(LINES);
        if more > 0 {
            self.line(format!("  … and {more} more"));
        }
    }

    /// How the answers are spread so far. On a terminal it grows in place, else only the last one is shown.
    pub(crate) fn tally(&self, tally: &Tally, known: &[IpAddr], total: u32) {
        let answers: u32 = tally.values().sum();
        let last = answers == total;
        if !self.live && !last {
            return;
        }
        let rows: BTreeSet<_> = known.iter().chain(tally.keys()).collect();
        let clear = if self.live { "\x1b[K" } else { "" };
        for address in &rows {
            let count = tally.get(address).copied().unwrap_or(0);
            let bar = "█".repeat((count * WIDTH / total.max(WIDTH)) as usize);
            let share = 100.0 * f64::from(count) / f64::from(answers);
            let share = if last { format!("  {share:.1} %") } else { String::new() };
            self.line(format!("  {:<12} {bar} {count}{share}{clear}", address.to_string()));
        }
        if !last {
            // Back up; the next one is drawn over this one.
            self.write(&format!("\x1b[{}A", rows.len()));
        }
    }

    fn write(&self, text: &str) {
        // Nobody reads it any more: the demo goes on all the same and cleans up.
        if self.to_stderr {
            drop(stderr().lock().write_all(text.as_bytes()));
        } else {
            drop(stdout().lock().write_all(text.as_bytes()));
            drop(stdout().flush());
        }
    }
}
