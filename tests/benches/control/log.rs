//! A daemon's log, by its clock.

use anyhow::{Context, Result};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Log(Vec<Line>);

#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) at: SystemTime,
    pub(crate) words: String,
}

impl Log {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    /// The last line with this word, if it is later than `after`.
    pub(crate) fn last(&self, word: &str, after: Option<SystemTime>) -> Option<Line> {
        let has = |line: &&Line| line.words.split([' ', ':']).any(|one| one == word);
        self.0.iter().rev().find(has).filter(|line| after.is_none_or(|after| line.at >= after)).cloned()
    }

    /// The first line with these words from `after` on.
    pub(crate) fn first_after(&self, words: [&str; 2], after: SystemTime) -> Option<Line> {
        let has = |line: &Line, word: &str| line.words.split(' ').any(|one| one == word);
        let mut lines = self.0.iter().filter(|line| line.at >= after);
        lines.find(|line| words.iter().all(|word| has(line, word))).cloned()
    }
}

impl Line {
    pub(crate) fn since(&self, moment: SystemTime) -> Duration {
        self.at.duration_since(moment).unwrap_or_default()
    }
}

fn line(text: &str) -> Option<Line> {
    let (time, words) = text.split_once(' ')?;
    match humantime::parse_rfc3339(time) {
        Ok(at) => Some(Line { at, words: words.to_owned() }),
        Err(_) => klog(time, words),
    }
}

/// Kubernetes' own, which leaves out the year: `I1123 21:37:35.123456   12345 proxier.go:1] "words"`.
fn klog(date: &str, rest: &str) -> Option<Line> {
    let (time, words) = rest.split_once(' ')?;
    let now = humantime::format_rfc3339(SystemTime::now()).to_string();
    let (year, month, day) = (now.get(..4)?, date.get(1..3)?, date.get(3..5)?);
    let at = humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{time}Z")).ok()?;
    Some(Line { at, words: words.to_owned() })
}

/// Reads the end of the log until `found` finds what it looks for.
pub(crate) fn wait<T>(path: &Path, found: impl Fn(&Log) -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let text = tail(path)?;
        let log = Log(text.lines().filter_map(line).collect());
        if let Some(value) = found(&log) {
            return Ok(value);
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn tail(path: &Path) -> Result<String> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(String::from_utf8_lossy(text.get(text.len().saturating_sub(4096)..).unwrap_or(&text)).into_owned())
}
