//! A command that goes on printing.

use anyhow::{Context, Result, bail};
use mcs_proxy_tests::{Daemon, programs};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Watcher {
    child: Child,
    /// Kept open: it may have more to say.
    errors: Option<BufReader<ChildStderr>>,
    lines: Receiver<String>,
}

impl Watcher {
    pub(crate) fn start(daemon: &Daemon, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(programs::mcs_proxy()?);
        command.args(arguments).arg("--pin-dir").arg(daemon.pin_dir());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().context("no output")?);
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, errors: None, lines })
    }

    /// A listener, that has begun to listen: it says so on its standard error.
    pub(crate) fn listen(daemon: &Daemon, arguments: &[&str]) -> Result<Self> {
        let mut watcher = Self::start(daemon, &[&["monitor"], arguments].concat())?;
        let mut line = String::new();
        let mut errors = BufReader::new(watcher.child.stderr.take().context("no errors")?);
        errors.read_line(&mut line)?;
        watcher.errors = Some(errors);
        if !line.starts_with("Listening") {
            bail!("{line}");
        }
        Ok(watcher)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("no line")
    }

    pub(crate) fn json(&self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| line)
    }

    /// The lines up to the first that is as wanted.
    pub(crate) fn until(&self, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.json().with_context(|| format!("{lines:#?}"))?);
            if lines.last().is_some_and(&wanted) {
                return Ok(lines);
            }
        }
    }

    /// All lines, once it has ended by itself.
    pub(crate) fn rest(mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it does not end; so far: {lines:#?}"),
            }
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{status}: {lines:#?}");
        }
        Ok(lines)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
