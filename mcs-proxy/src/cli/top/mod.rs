//! `mcs-proxy top`: Services by what they do in a second, on the whole screen.
//!
//! [`Screen`] is what is shown and what keys do to it; [`draw`] puts it on a terminal of whatever size.

mod draw;
mod screen;
mod signals;
#[cfg(test)]
mod testing;

use super::{stats, view::View};
use crate::config::{Places, Top};
use anyhow::{Context as _, bail};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use screen::{After, Screen};
use signals::Signals;
use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

/// How soon a signal is heeded.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shows Services by their rates until somebody quits.
///
/// # Errors
/// Standard output is no terminal; or nothing is pinned, or what is pinned cannot be read.
pub fn top(places: &Places, asked: &Top) -> anyhow::Result<()> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        bail!("top needs a terminal; for files and pipes: mcs-proxy stats --rate --count 0");
    }
    // Whatever there is to complain about comes before the screen is taken.
    let first = View::read_counters(places)?;
    let signals = Signals::catch()?;
    let mut terminal = ratatui::try_init().context("cannot take the terminal")?;
    let shown = show(&mut terminal, places, asked.interval.into(), first, &signals);
    let restored = ratatui::try_restore().context("cannot give the terminal back; type `reset`");
    shown.and(restored)
}

fn show(
    terminal: &mut DefaultTerminal,
    places: &Places,
    interval: Duration,
    first: View,
    signals: &Signals,
) -> anyhow::Result<()> {
    let mut screen = Screen::new(places.pin_dir.display().to_string(), interval);
    let (mut before, mut looked) = (first, Instant::now());
    loop {
        terminal.draw(|frame| draw::draw(frame, &mut screen))?;
        let left = interval.saturating_sub(looked.elapsed());
        if event::poll(left.min(PATIENCE))?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && screen.press(key) == After::Quit
        {
            return Ok(());
        }
        if signals.is_told_to_end() {
            return Ok(());
        }
        if looked.elapsed() >= interval {
            let now = View::read_counters(places)?;
            let seconds = looked.elapsed().as_secs_f64();
            looked = Instant::now();
            screen.show(stats::rates(&before, &now, seconds, None));
            before = now;
        }
    }
}
