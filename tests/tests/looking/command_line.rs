//! How commands end, and how others call them: a shell, kubectl.

use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::programs;
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder of the test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("mcs-proxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn errors_go_to_standard_error_and_the_exit_code_tells_them_apart() -> Result<()> {
    for (arguments, code, words) in [
        (&["services", "--pin-dir", "/sys/fs/bpf/nobody-pins-here"][..], 3, "nothing is pinned in"),
        (&["stats", "--pin-dir", "/sys/fs/bpf/nobody-pins-here"], 3, "nothing is pinned in"),
        (&["monitor", "--pin-dir", "/sys/fs/bpf/nobody-pins-here"], 3, "nothing is pinned in"),
        (&["top", "--pin-dir", "/sys/fs/bpf/nobody-pins-here"], 1, "mcs-proxy stats --rate"),
        (&["connections", "--state", "open"], 2, "established"),
        (&["connections", "--client", "nobody"], 2, "IP:PORT"),
        (&["monitor", "--verdict", "nonsense"], 2, "unknown-connection"),
        (&["stats", "--interval", "1ms"], 2, "a tenth of a second"),
        (&["nonsense"], 2, "unrecognized subcommand"),
        (&["explain", "-f", "/not/there"], 1, "/not/there"),
    ] {
        let (found, out, error) = said(&Command::new(programs::mcs_proxy()?).args(arguments).output()?);
        ensure!(found == Some(code), "{arguments:?} ended with {found:?}: {error}");
        ensure!(out.is_empty() && error.contains(words), "{arguments:?}: {out}\n{error}");
    }
    let help = Command::new(programs::mcs_proxy()?).arg("--help").output()?;
    let help = said(&help).1.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(help.contains("3 nothing is pinned here"), "{help}");
    Ok(())
}

#[test]
fn a_shell_reads_its_completion_script_and_completes_by_it() -> Result<()> {
    let script = Command::new(programs::mcs_proxy()?).args(["completion", "bash"]).output()?;
    let (code, script, error) = said(&script);
    ensure!(code == Some(0), "{error}");
    let ask = |words: &str| -> Result<String> {
        let count = words.split(' ').count() - 1;
        let asked = format!(
            "{script}\nCOMP_WORDS=({words} ''); COMP_CWORD={}; _mcs__proxy mcs-proxy '' \"${{COMP_WORDS[$COMP_CWORD-1]}}\"; \
             echo \"${{COMPREPLY[@]}}\"",
            count + 1
        );
        let (code, out, error) = said(&Command::new("bash").args(["-c", &asked]).output()?);
        ensure!(code == Some(0) && error.is_empty(), "{error}");
        Ok(out)
    };
    let commands = ask("mcs-proxy")?;
    for command in ["services", "connections", "stats", "top", "monitor", "explain", "completion"] {
        ensure!(commands.split_whitespace().any(|word| word == command), "no {command}: {commands}");
    }
    ensure!(ask("mcs-proxy connections --state")?.contains("time-wait"));
    for shell in ["zsh", "fish"] {
        let (code, out, _) =
            said(&Command::new(programs::mcs_proxy()?).args(["completion", shell]).output()?);
        ensure!(code == Some(0) && out.contains("kubectl-mcs_proxy"), "{shell}");
    }
    Ok(())
}

const KUBECTL: &str = r#"#!/bin/sh
echo "kubectl $*" >> "$LOG"
case "$*" in
  *"get pods"*) cat <<'PODS'
{"items": [
 {"metadata": {"name": "mcs-proxy-aaaaa"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}},
 {"metadata": {"name": "mcs-proxy-bbbbb"}, "spec": {"nodeName": "n2"}, "status": {"phase": "Running"}}]}
PODS
  ;;
  *exec*) echo from the pod; exit 7;;
esac
"#;

#[test]
fn the_plugin_runs_the_command_in_the_nodes_pod_and_ends_as_it_does() -> Result<()> {
    let folder = Folder::new("plugin")?;
    folder.script("kubectl", KUBECTL)?;
    symlink(programs::mcs_proxy()?, folder.0.join("kubectl-mcs_proxy"))?;
    let log = folder.0.join("log");
    let call = |arguments: &[&str]| -> Result<(Option<i32>, String, String)> {
        let path = format!("{}:{}", folder.0.display(), env::var("PATH").context("PATH")?);
        let mut plugin = Command::new(folder.0.join("kubectl-mcs_proxy"));
        Ok(said(&plugin.args(arguments).env("PATH", path).env("LOG", &log).output()?))
    };
    let (code, out, error) = call(&["connections", "--node", "n2", "--state", "established", "-o", "json"])?;
    ensure!((code, out.as_str()) == (Some(7), "from the pod\n"), "{code:?} {out} {error}");
    assert_eq!(
        fs::read_to_string(&log)?,
        "kubectl get pods -n mcs-proxy -l app.kubernetes.io/name=mcs-proxy -o json\n\
         kubectl exec -n mcs-proxy mcs-proxy-bbbbb -- mcs-proxy connections --state established -o json\n"
    );
    fs::remove_file(&log)?;
    for (arguments, words) in [
        (&["services"][..], "--node NODE; mcs-proxy is on: n1, n2"),
        (&["services", "--node", "n3"], "on node n3; there are on: n1, n2"),
        (&["run", "--cluster-name", "m"], "DaemonSet"),
        (&["connections", "--node", "n1", "--state", "open"], "established"),
    ] {
        let (code, out, error) = call(arguments)?;
        ensure!(code != Some(0) && out.is_empty() && error.contains(words), "{arguments:?}: {error}");
    }
    ensure!(!fs::read_to_string(&log)?.contains("exec"));
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/demo-member2");
    let (code, out, error) =
        call(&["explain", "-f", &manifests.display().to_string(), "--cluster-name", "member2"])?;
    ensure!(
        code == Some(0) && out.contains("default/serve is served"),
        "here, without kubectl: {out} {error}"
    );
    Ok(())
}
