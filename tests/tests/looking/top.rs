//! `top` on a terminal, which it gives back as it was, however it ends.

use crate::stage::{Stage, v4};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::{ServiceRow, client, programs};
use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// A shell on a terminal of its own (script(1)), which says before and after how the terminal is set.
struct Terminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(stage: &Stage) -> Result<Self> {
        let program = programs::mcs_proxy()?;
        let top = format!(
            "{} top --interval 200ms --pin-dir {}",
            program.display(),
            stage.daemon.pin_dir().display()
        );
        let line =
            format!("stty rows 24 cols 100; stty -g; sh -c 'echo PID=$$; exec {top}'; echo CODE=$?; stty -g");
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--command", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("script(1)")?;
        let mut out = child.stdout.take().context("no output")?;
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, output, shown: String::new() })
    }

    fn wait_for(&mut self, words: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.shown.contains(words) {
            let left = end.saturating_duration_since(Instant::now());
            let bytes =
                self.output.recv_timeout(left).with_context(|| format!("no `{words}`: {:?}", self.shown))?;
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no input")?;
        stdin.write_all(keys.as_bytes())?;
        Ok(stdin.flush()?)
    }

    fn pid(&self) -> Result<String> {
        let (_, rest) = self.shown.split_once("PID=").context("no PID")?;
        Ok(rest.chars().take_while(char::is_ascii_digit).collect())
    }

    fn signal(&self, name: &str) -> Result<()> {
        ensure!(Command::new("kill").args([name, &self.pid()?]).status()?.success());
        Ok(())
    }

    /// Once it is over: the terminal is as it was.
    fn assert_restored(&mut self) -> Result<()> {
        self.wait_for("CODE=0")?;
        let settings = |text: &str| {
            let is_setting = |line: &&str| line.matches(':').count() > 20;
            text.lines().map(str::trim).filter(is_setting).map(str::to_owned).collect::<Vec<_>>()
        };
        let end = Instant::now() + PATIENCE;
        while settings(&self.shown).len() < 2 {
            let left = end.saturating_duration_since(Instant::now());
            let bytes = self.output.recv_timeout(left).with_context(|| self.shown.clone())?;
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        let settings = settings(&self.shown);
        ensure!(settings[0] == settings[1], "{settings:#?}");
        let (entered, left) = (self.shown.rfind(ENTER), self.shown.rfind(LEAVE));
        ensure!(entered.is_some() && left > entered, "{:?}", self.shown);
        ensure!(self.shown.rfind(SHOW_CURSOR) > entered, "{:?}", self.shown);
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn the_terminal_is_given_back_however_top_ends() -> Result<()> {
    let mut stage = Stage::new()?;
    client::http(&stage.client.namespace, v4()?, 1)?;
    let named = |rows: &[ServiceRow]| rows.iter().all(|row| row.name == "serve");
    stage.daemon.wait_for_services("names", named)?;
    stage.daemon.crash()?;
    for end in ["q", "\x03", "\x1b", "-TERM", "-HUP", "-INT"] {
        let mut terminal = Terminal::start(&stage)?;
        terminal.wait_for("default/serve:http")?;
        terminal.wait_for("member1")?;
        if end.starts_with('-') {
            terminal.signal(end)?;
        } else {
            terminal.press(end)?;
        }
        terminal.assert_restored().with_context(|| format!("{end:?}"))?;
    }
    Ok(())
}

#[test]
fn top_ends_when_its_terminal_is_gone() -> Result<()> {
    let stage = Stage::new()?;
    let mut terminal = Terminal::start(&stage)?;
    terminal.wait_for("default/serve:http")?;
    let process = format!("/proc/{}/cmdline", terminal.pid()?);
    // One that has ended, and waits for its parent, has none.
    let runs = || fs::read(&process).is_ok_and(|line| !line.is_empty());
    ensure!(runs());
    // script(1) has the other end.
    terminal.child.kill()?;
    let end = Instant::now() + PATIENCE;
    while runs() {
        ensure!(Instant::now() < end, "it still runs");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
