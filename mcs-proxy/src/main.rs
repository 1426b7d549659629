//! `mcs-proxy`: the daemon of a node, and the commands that look at what it did.

use clap::Parser as _;
use mcs_proxy::{
    cli::{self, Ending},
    config::{Cli, Command},
    daemon,
    observe::with_causes,
};
use std::{
    env, panic,
    process::{self, ExitCode},
};

fn main() -> ExitCode {
    end_on_panic();
    let done = if env::args_os().next().is_some_and(|name| cli::is_plugin(&name)) {
        let arguments: Vec<String> =
            env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
        cli::plugin(&arguments).map(|()| Ending::Well)
    } else {
        run(Cli::parse())
    };
    match done {
        Ok(ending) => cli::code_of(ending),
        Err(error) => {
            eprintln!("mcs-proxy: {}", with_causes(error.as_ref()));
            cli::exit_code(&error)
        }
    }
}

fn run(Cli { places, command }: Cli) -> anyhow::Result<Ending> {
    let mut ending = Ending::Well;
    let mut judged = |(text, judgement)| {
        ending = judgement;
        text
    };
    let said = match command {
        Command::Status { output } => {
            cli::status(&places, output).map(|(text, worst)| judged((text, worst.into())))
        }
        Command::Check(asked) => {
            cli::check(&places, &asked).map(|(text, worst)| judged((text, worst.into())))
        }
        Command::Run(run) => return daemon::main(&places, &run).map(|()| Ending::Well),
        Command::Services(asked) => return cli::services(&places, &asked).map(|()| Ending::Well),
        Command::Stats(asked) => return cli::stats(&places, &asked).map(|()| Ending::Well),
        Command::Top(asked) => return cli::top(&places, &asked).map(|()| Ending::Well),
        Command::Monitor(asked) => return cli::monitor(&places, &asked).map(|()| Ending::Well),
        Command::Backends(list) => cli::backends(&places, &list),
        Command::Explain(asked) => cli::explain(&places, &asked),
        Command::Cleanup(asked) => cli::cleanup(&places, asked),
        Command::Uninstall(asked) => cli::uninstall(&asked),
        Command::Mode { mode } => cli::mode(&places, mode).map(judged),
        Command::Connections(asked) => cli::connections(&places, &asked),
        Command::Completion { shell } => Ok(cli::completion(shell)),
    };
    cli::print(&said?).map(|_| ending)
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
