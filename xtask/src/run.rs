//! Running other programs, and telling a person about it.

use anyhow::{Context, Result, bail};
use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{IsTerminal, Write, stderr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// How much of a log is shown when its command has failed.
const TAIL_LINES: usize = 30;

/// The cargo that runs us.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// A command that does not think it is part of building xtask.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let inherited = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME"
        });
        if inherited {
            command.env_remove(name);
        }
    }
    // cargo points it at its own libraries, which are not for other compilers.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// # Errors
/// We are not root, which network namespaces and eBPF programs take.
pub(crate) fn require_root(task: &str) -> Result<()> {
    if !is_root() {
        bail!("{task} makes network namespaces and loads eBPF programs: run it as root");
    }
    Ok(())
}

/// The owner of our own process, without a call into libc.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Builds programs of the workspace. They come to lie beside our own executable.
pub(crate) fn build(workspace: &Path, programs: &[&str]) -> Result<()> {
    let mut build = command(cargo());
    build.current_dir(workspace).args([
        "build",
        "--locked",
        "--package",
        "mcs-proxy",
        "--package",
        "mcs-proxy-tests",
    ]);
    for program in programs {
        build.args(["--bin", program]);
    }
    // cargo's own progress goes to standard error.
    if !build.status()?.success() {
        bail!("{} did not build", programs.join(" and "));
    }
    Ok(())
}

/// Where a program is, as a shell would find it.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    // Programs for administrators may be missing from PATH after a plain `su`.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// A line about what is going on.
pub(crate) fn say(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// What else writes to the terminal meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    AnotherBuild,
}

/// Runs a command whose output is long: one line here, the output in `log`, its tail here if the command fails.
pub(crate) fn logged(log: &Path, what: &str, command: &mut Command, beside: Beside) -> Result<()> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut file = File::create(log).with_context(|| log.display().to_string())?;
    writeln!(file, "{command:?}")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;

    let (done, waiting) = mpsc::channel();
    let ticker = thread::spawn({
        let (what, log) = (what.to_owned(), log.to_owned());
        move || tick(&what, &log, &waiting, beside)
    });
    let status = child.wait();
    drop(done);
    let elapsed = ticker.join().unwrap_or_default();
    let status = status?;
    if status.success() {
        say(format!("{what}: done in {elapsed:.0?}"));
        return Ok(());
    }
    say(format!("{what}: failed; the end of {}:", log.display()));
    let text = fs::read(log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        say(format!("  | {line}"));
    }
    bail!("{what}: {status}")
}

/// Shows that time passes, until the channel closes: on a terminal in place, else a line a minute.
fn tick(what: &str, log: &Path, waiting: &mpsc::Receiver<()>, beside: Beside) -> Duration {
    let start = Instant::now();
    let terminal = stderr().is_terminal() && beside == Beside::Nothing;
    let pause = Duration::from_secs(if terminal { 1 } else { 60 });
    say(format!("{what} (log: {})", log.display()));
    while waiting.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let seconds = start.elapsed().as_secs();
        if terminal {
            eprint!("\r  {seconds} s\r");
        } else {
            say(format!("{what}: still at it after {seconds} s"));
        }
    }
    start.elapsed()
}
