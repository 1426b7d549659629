use super::Cluster;
use crate::{Process, namespace::run_with_input};
use anyhow::{Context, Result};
use std::{process::Command, time::Duration};

impl Cluster {
    /// Runs kubectl as an administrator and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with("", arguments)
    }

    /// The same with something to read: `kubectl apply -f -`.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn kubectl_with(&self, input: &str, arguments: &[&str]) -> Result<String> {
        run_with_input(self.command("kubectl")?.args(arguments), input)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl_with(manifests, &["apply", "-f", "-"]).map(drop)
    }

    /// Runs helm as an administrator and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error has its words.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        run_with_input(self.command("helm")?.args(arguments), "")
    }

    /// Starts a command that takes a while; what it says is in the process's output and log.
    ///
    /// # Errors
    /// It does not start.
    pub fn meanwhile(&self, name: &str, command: Command) -> Result<Process> {
        self.fabric().spawn_command(name, command)
    }

    /// Waits until a Deployment or DaemonSet is as it is written: `daemonset/mcs-proxy`.
    ///
    /// # Errors
    /// It does not get there; the error says what its pods have come to.
    pub fn wait_for_rollout(&self, namespace: &str, what: &str) -> Result<()> {
        const PATIENCE: Duration = super::PATIENCE;
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["-n", namespace, "rollout", "status", what, &timeout])
            .map(drop)
            .with_context(|| self.state_of(namespace))
    }

    /// What there is in a namespace and what became of it, for errors.
    fn state_of(&self, namespace: &str) -> String {
        let show = |what: &[&str]| self.kubectl(what).unwrap_or_else(|error| format!("{error:#}"));
        [
            show(&["-n", namespace, "get", "all", "-o", "wide"]),
            show(&["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"]),
            show(&["-n", namespace, "logs", "--all-containers", "--prefix", "--tail=20", "-l", "!none"]),
        ]
        .join("\n")
    }

    /// A command of kubectl or helm, as an administrator runs it.
    ///
    /// # Errors
    /// There is no such program.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.fabric().command(self.program(program)?)?;
        command.env("KUBECONFIG", self.kubeconfig());
        for name in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{name}_HOME"), self.folder("helm")?.join(name));
        }
        command.env("KUBECACHEDIR", self.folder("kubectl-cache")?);
        Ok(command)
    }
}
