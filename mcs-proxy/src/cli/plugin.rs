//! `kubectl mcs-proxy`: a command on a node of the cluster, from wherever kubectl works.
//!
//! kubectl takes a program called `kubectl-mcs_proxy` on PATH as its subcommand `mcs-proxy`. That is this program by
//! another name: it reads the command line by the same definition, and has `kubectl exec` run it in the node's pod.

use crate::config::{Cli, Command};
use anyhow::{Context as _, bail};
use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, IsTerminal as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process,
};

/// The file by whose name kubectl finds the plugin.
pub(super) const PLUGIN: &str = "kubectl-mcs_proxy";

/// Whether the program was called as kubectl's plugin: `name` is what it was called by.
#[must_use]
pub fn is_plugin(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name == PLUGIN)
}

/// What is asked of the plugin itself; the rest goes to the node.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    node: Option<String>,
    namespace: String,
    label: String,
    /// For every call of kubectl.
    kubectl: Vec<String>,
    /// The command, as it runs on the node.
    rest: Vec<String>,
    place: Where,
    /// Whether the command is one that goes on until it is interrupted, or draws on a terminal.
    interactive: bool,
}

/// Where a command can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Node,
    /// It needs no node: it looks at files, prints a script, or asks the API server.
    Here,
}

/// The plugin's own flags, with whether each is kubectl's as well.
const FLAGS: [(&str, Option<char>, bool); 4] = [
    ("node", None, false),
    ("namespace", Some('n'), false),
    ("label", Some('l'), false),
    ("context", None, true),
];

/// The command line as the plugin has it: the program's own, and where to run it.
#[must_use]
pub(super) fn command() -> clap::Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).global(true).help_heading("Where to run it")
    };
    Cli::command()
        .name("kubectl mcs-proxy")
        .bin_name("kubectl mcs-proxy")
        .arg(flag("node", "NODE", "Node whose mcs-proxy is asked"))
        .arg(
            flag("namespace", "NAMESPACE", "Namespace of the DaemonSet")
                .short('n')
                .default_value("mcs-proxy"),
        )
        .arg(
            flag("label", "LABEL", "Label of its pods")
                .short('l')
                .default_value("app.kubernetes.io/name=mcs-proxy"),
        )
        .arg(flag("context", "NAME", "Context of the kubeconfig, as for kubectl"))
}

/// Runs the command line, and returns only if it cannot.
///
/// # Errors
/// It is wrong; or kubectl is not there, knows no such node, or has no pod on it.
pub fn plugin(arguments: &[String]) -> anyhow::Result<()> {
    let matches = command().try_get_matches_from(arguments).unwrap_or_else(|error| error.exit());
    let asked = asked(&matches, arguments)?;
    if asked.place == Where::Here {
        let own = std::env::current_exe().context("our own file")?;
        return Err(process::Command::new(own).arg0("mcs-proxy").args(&asked.rest).exec())
            .context("cannot go on");
    }
    let pod = pod(&asked)?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let exec = exec_arguments(&asked, &pod, is_terminal);
    Err(process::Command::new("kubectl").args(exec).exec()).context("kubectl")
}

/// `arguments` are those that the matches are of, the program's name first.
fn asked(matches: &ArgMatches, arguments: &[String]) -> anyhow::Result<Asked> {
    let value = |name: &str| matches.get_one::<String>(name).cloned();
    let command = Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit()).command;
    let (place, interactive) = match &command {
        Command::Run(_) => bail!("run is for the DaemonSet's pods; see deploy/ for how to install it"),
        Command::Explain(asked) if asked.manifests.is_some() => (Where::Here, false),
        Command::Completion { .. } | Command::Uninstall(_) => (Where::Here, false),
        Command::Top(_) | Command::Monitor(_) => (Where::Node, true),
        Command::Services(asked) => (Where::Node, asked.watch),
        Command::Stats(asked) => (Where::Node, asked.count != 1),
        Command::Backends(_)
        | Command::Connections(_)
        | Command::Explain(_)
        | Command::Mode { .. }
        | Command::Status { .. }
        | Command::Check(_)
        | Command::Cleanup(_) => (Where::Node, false),
    };
    let own = |(name, _, is_kubectls): (&'static str, Option<char>, bool)| {
        is_kubectls.then(|| value(name).map(|value| format!("--{name}={value}"))).flatten()
    };
    Ok(Asked {
        node: value("node"),
        namespace: value("namespace").unwrap_or_default(),
        label: value("label").unwrap_or_default(),
        kubectl: FLAGS.into_iter().filter_map(own).collect(),
        rest: without_own(arguments.get(1..).unwrap_or_default()),
        place,
        interactive,
    })
}

/// The arguments without the plugin's own flags, wherever those stand.
fn without_own(arguments: &[String]) -> Vec<String> {
    let mut rest = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rest.push(argument.clone());
            rest.extend(arguments.cloned());
            break;
        }
        let flag = FLAGS.into_iter().find_map(|(long, short, _)| {
            let after = argument
                .strip_prefix("--")
                .and_then(|text| text.strip_prefix(long))
                .filter(|after| after.is_empty() || after.starts_with('='));
            let after_short = short.and_then(|short| argument.strip_prefix('-')?.strip_prefix(short));
            after.or(after_short)
        });
        match flag {
            // Its value is the next argument.
            Some("") => drop(arguments.next()),
            Some(_) => {}
            None => rest.push(argument.clone()),
        }
    }
    rest
}

/// Of `kubectl get pods -o json`, what is needed.
#[derive(Debug, Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    phase: Option<String>,
}

/// The pod on the node that is asked for.
fn pod(asked: &Asked) -> anyhow::Result<String> {
    let output = process::Command::new("kubectl")
        .args(pods_arguments(asked))
        .output()
        .context("kubectl (it must be on PATH)")?;
    if !output.status.success() {
        bail!("kubectl get pods: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let pods: Pods = serde_json::from_slice(&output.stdout).context("kubectl get pods -o json")?;
    choose(asked, pods)
}

fn pods_arguments(asked: &Asked) -> Vec<String> {
    let own = ["get", "pods", "-n", &asked.namespace, "-l", &asked.label, "-o", "json"];
    asked.kubectl.iter().cloned().chain(own.map(str::to_owned)).collect()
}

/// Without a node, the only one there is.
fn choose(asked: &Asked, pods: Pods) -> anyhow::Result<String> {
    let Asked { namespace, label, .. } = asked;
    let mut by_node: BTreeMap<String, (bool, String)> = BTreeMap::new();
    for Pod { metadata, spec, status } in pods.items {
        let Some(node) = spec.node_name else { continue };
        let runs = status.phase.as_deref() == Some("Running") && metadata.deletion_timestamp.is_none();
        let pod = (runs, metadata.name);
        // While a pod is replaced there are two.
        if by_node.get(&node).is_none_or(|known| *known < pod) {
            by_node.insert(node, pod);
        }
    }
    let nodes = || by_node.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if by_node.is_empty() {
        bail!(
            "no pod with the label {label} in namespace {namespace}: say where mcs-proxy is installed with \
             --namespace and --label"
        );
    }
    let found = match &asked.node {
        Some(node) => by_node.get(node).with_context(|| {
            format!(
                "no pod with the label {label} in namespace {namespace} on node {node}; there are on: {}",
                nodes()
            )
        })?,
        None if by_node.len() == 1 => by_node.values().next().context("no pod")?,
        None => bail!("say which node with --node NODE; mcs-proxy is on: {}", nodes()),
    };
    match found {
        (true, name) => Ok(name.clone()),
        (false, name) => bail!(
            "pod {name} does not run: see `kubectl describe pod -n {namespace} {name}`; traffic goes on without it, and \
             on the node itself mcs-proxy can be asked without a pod"
        ),
    }
}

fn exec_arguments(asked: &Asked, pod: &str, is_terminal: bool) -> Vec<String> {
    let mut arguments = asked.kubectl.clone();
    arguments.extend(["exec", "-n", &asked.namespace, pod].map(str::to_owned));
    if asked.interactive && is_terminal {
        // With a terminal over there Ctrl-C ends the command, not kubectl alone.
        arguments.push("-it".into());
    }
    arguments.extend(["--", "mcs-proxy"].map(str::to_owned));
    arguments.extend(asked.rest.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Asked {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let matches = command().try_get_matches_from(&arguments).unwrap();
        asked(&matches, &arguments).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_plugins_flags_stay_here_wherever_they_stand() {
        for line in [
            "kubectl-mcs_proxy services --node n1 default/serve -o json",
            "kubectl-mcs_proxy --node n1 services default/serve -o json",
            "kubectl-mcs_proxy services default/serve --node=n1 -o json",
            "kubectl-mcs_proxy -n mcs-proxy services default/serve -o json --node n1",
            "kubectl-mcs_proxy services -nmcs-proxy default/serve -o json --node=n1",
            "kubectl-mcs_proxy services --node n1 --label app.kubernetes.io/name=mcs-proxy default/serve -o json",
        ] {
            let asked = ask(line);
            assert_eq!(asked.node.as_deref(), Some("n1"), "{line}");
            assert_eq!(asked.rest, ["services", "default/serve", "-o", "json"], "{line}");
            assert_eq!(asked.namespace, "mcs-proxy", "{line}");
        }
    }

    #[test]
    fn kubectl_is_asked_for_the_pod_and_then_to_run_the_command_in_it() {
        let asked = ask("kubectl-mcs_proxy --context blue -n system monitor --node n1 --client 10.12.0.9");
        assert_eq!(
            pods_arguments(&asked).join(" "),
            "--context=blue get pods -n system -l app.kubernetes.io/name=mcs-proxy -o json"
        );
        let exec = |is_terminal| exec_arguments(&asked, "mcs-proxy-x2x5p", is_terminal).join(" ");
        let rest = "-- mcs-proxy monitor --client 10.12.0.9";
        assert_eq!(exec(true), format!("--context=blue exec -n system mcs-proxy-x2x5p -it {rest}"));
        assert_eq!(exec(false), format!("--context=blue exec -n system mcs-proxy-x2x5p {rest}"));
        let once = ask("kubectl-mcs_proxy stats --node n1");
        assert!(!exec_arguments(&once, "p", true).contains(&"-it".to_owned()));
    }

    #[test]
    fn what_needs_no_node_runs_here_and_the_daemon_nowhere() {
        assert_eq!(ask("kubectl-mcs_proxy completion bash").place, Where::Here);
        assert_eq!(ask("kubectl-mcs_proxy explain -f manifests").place, Where::Here);
        let leave = ask("kubectl-mcs_proxy uninstall --drain 5s --selector a=b");
        assert_eq!(
            (leave.place, leave.rest.join(" ").as_str()),
            (Where::Here, "uninstall --drain 5s --selector a=b")
        );
        assert_eq!(ask("kubectl-mcs_proxy explain default/serve").place, Where::Node);
        let arguments = ["kubectl-mcs_proxy", "run", "--cluster-name", "m"].map(str::to_owned);
        let matches = command().try_get_matches_from(&arguments).unwrap();
        assert!(asked(&matches, &arguments).unwrap_err().to_string().contains("DaemonSet"));
    }

    fn pods(of: &[(&str, &str, &str, bool)]) -> Pods {
        let items = of
            .iter()
            .map(|&(name, node, phase, leaves)| Pod {
                metadata: Metadata {
                    name: name.into(),
                    deletion_timestamp: leaves.then(|| "2026-01-01T00:00:00Z".into()),
                },
                spec: Spec { node_name: Some(node.into()) },
                status: Status { phase: Some(phase.into()) },
            })
            .collect();
        Pods { items }
    }

    #[test]
    fn the_pod_that_runs_on_the_node_is_asked_and_errors_name_the_nodes() {
        let here = ask("kubectl-mcs_proxy services --node n1");
        let both = || {
            pods(&[
                ("old", "n1", "Running", true),
                ("new", "n1", "Running", false),
                ("x", "n2", "Running", false),
            ])
        };
        assert_eq!(choose(&here, both()).unwrap(), "new");
        let error = |asked: &Asked, pods| choose(asked, pods).unwrap_err().to_string();
        let anywhere = ask("kubectl-mcs_proxy services");
        assert!(error(&anywhere, both()).contains("--node NODE; mcs-proxy is on: n1, n2"));
        assert_eq!(choose(&anywhere, pods(&[("x", "n2", "Running", false)])).unwrap(), "x");
        assert!(
            error(&here, pods(&[("x", "n2", "Running", false)])).contains("on node n1; there are on: n2")
        );
        assert!(error(&here, pods(&[])).contains("--namespace and --label"));
        let pending = error(&here, pods(&[("x", "n1", "Pending", false)]));
        assert!(pending.contains("kubectl describe pod -n mcs-proxy x"), "{pending}");
    }
}
