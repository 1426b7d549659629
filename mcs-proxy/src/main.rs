//! `mcs-proxy`: the daemon of a node, and the commands that look at what it did.

use clap::Parser as _;
use mcs_proxy::{
    cli,
    config::{Cli, Command},
    daemon,
    observe::{line::Level, with_causes},
};
use std::{
    io::{self, Write as _},
    panic,
    process::{self, ExitCode},
};

fn main() -> ExitCode {
    end_on_panic();
    let Cli { places, command } = Cli::parse();
    let mut code = ExitCode::SUCCESS;
    let mut judged = |(text, level)| {
        code = exit_code(level);
        text
    };
    let said = match command {
        Command::Status { output } => cli::status(&places, output).map(&mut judged),
        Command::Check(asked) => cli::check(&places, &asked).map(&mut judged),
        Command::Run(run) => daemon::main(&places, &run).map(|()| String::new()),
        Command::Services(list) => cli::services(&places, &list),
        Command::Backends(list) => cli::backends(&places, &list),
        Command::Explain(asked) => cli::explain(&places, &asked),
        Command::Cleanup(asked) => cli::cleanup(&places, asked),
        Command::Uninstall(asked) => cli::uninstall(&asked),
        Command::Mode { mode } => cli::mode(&places, mode),
        Command::Connections(list) => cli::connections(&places, &list),
    };
    match said.and_then(|text| print(&text)) {
        Ok(()) => code,
        Err(error) => {
            eprintln!("mcs-proxy: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// 1 is for a command that could not be carried out, 2 for one that was not understood (clap's).
fn exit_code(level: Level) -> ExitCode {
    match level {
        Level::Ok | Level::Warning => ExitCode::SUCCESS,
        Level::Failed => ExitCode::from(3),
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A panic in one task must not leave the others running as if nothing had happened: end, where a supervisor sees it.
/// Traffic goes on without us.
fn end_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        process::abort();
    }));
}
