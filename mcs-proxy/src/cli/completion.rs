//! `mcs-proxy completion`.

use super::plugin;
use crate::config::Cli;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// The script by which a shell completes our command line, and kubectl's plugin's by the name of its file.
#[must_use]
pub fn completion(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mcs-proxy", &mut script);
    clap_complete::generate(shell, &mut plugin::command().name(plugin::PLUGIN), plugin::PLUGIN, &mut script);
    // clap_complete 4.6 writes the name of a program with a hyphen in two ways, and its script for bash then finds no
    // subcommand of it.
    String::from_utf8_lossy(&script)
        .replace("mcs__subcmd__proxy", "mcs__proxy")
        .replace("kubectl__subcmd__mcs_proxy", "kubectl__mcs_proxy")
}
