//! A real API server: etcd, kube-apiserver, and the controllers that write EndpointSlices, on a world's fabric.

use crate::{FABRIC, Namespace, Process, World, etcd, namespace::run, programs};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(90);
/// An administrator's.
pub(crate) const TOKEN: &str = "harness";
/// Of the service account that `deploy/base` makes.
const DAEMON_TOKEN: &str = "daemon";
const DAEMON: &str = "system:serviceaccount:mcs-proxy:mcs-proxy";
const LEAVER_TOKEN: &str = "leaver";
const LEAVER: &str = "system:serviceaccount:mcs-proxy:mcs-proxy-uninstall";
pub(crate) const PORT: u16 = 6443;

/// The processes of a control plane. There is no kubelet: nodes and pods are entered by hand.
#[derive(Debug)]
pub struct ApiServer {
    /// Ended in this order: the rest depends on etcd.
    controllers: Option<Process>,
    server: Option<Process>,
    etcd: Option<Process>,
    namespace: Namespace,
    folder: PathBuf,
    service_range: String,
    /// Flags of the server beyond the usual ones.
    more: Vec<String>,
}

/// What every API server here is told. `folder` has the tokens and the keys, and gets the certificates.
pub(crate) fn server_flags(folder: &Path, authorization: &str, service_range: &str) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--authorization-mode={authorization}"),
        format!("--token-auth-file={}", file("tokens.csv")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={service_range}"),
        format!("--cert-dir={}", file("certificates")),
        format!("--bind-address={FABRIC}"),
        format!("--advertise-address={FABRIC}"),
        format!("--secure-port={PORT}"),
    ]
}

impl ApiServer {
    /// Starts everything and waits until the server is ready.
    ///
    /// # Errors
    /// A program is missing or does not get there.
    pub fn start(world: &World, service_range: &str) -> Result<Self> {
        Self::start_with(world, service_range, &[])
    }

    /// As [`start`](Self::start), with more flags for the server.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(world: &World, service_range: &str, more: &[&str]) -> Result<Self> {
        let folder = world.folder("api")?;
        let namespace = world.fabric().clone();
        fs::write(
            folder.join("tokens.csv"),
            format!("{TOKEN},admin,1,system:masters\n{DAEMON_TOKEN},{DAEMON},2\n{LEAVER_TOKEN},{LEAVER},3\n"),
        )?;
        make_keys(&folder)?;
        let etcd = Some(etcd::start(&namespace, &folder)?);
        let mut api = Self {
            controllers: None,
            server: None,
            etcd,
            namespace,
            folder,
            service_range: service_range.to_owned(),
            more: more.iter().map(|&flag| flag.to_owned()).collect(),
        };
        fs::write(api.kubeconfig(), kubeconfig(TOKEN))?;
        fs::write(api.daemon_kubeconfig(), kubeconfig(DAEMON_TOKEN))?;
        fs::write(api.leaver_kubeconfig(), kubeconfig(LEAVER_TOKEN))?;
        api.start_server()?;
        let kubeconfig = api.kubeconfig().display().to_string();
        api.controllers = Some(api.namespace.spawn(
            "kube-controller-manager",
            &programs::kubernetes("kube-controller-manager")?,
            &[
                "--kubeconfig", &kubeconfig, "--leader-elect=false", "--bind-address", "127.0.0.1",
                "--controllers=endpointslice-controller,endpointslice-mirroring-controller,namespace-controller",
            ],
        )?);
        Ok(api)
    }

    /// Ends the server, as an upgrade of it does; etcd and the controllers stay.
    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// Takes from etcd what was before now: without its watch cache, the server then refuses watches from there (410 Gone).
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn forget_the_past(&self) -> Result<()> {
        etcd::compact(&self.namespace)
    }

    /// Starts server and etcd anew, while nothing runs having copied what etcd has to elsewhere, or back from there: as one does who
    /// restores a backup. Versions are then as they were, too.
    ///
    /// # Errors
    /// The files cannot be copied, or the server does not get there.
    pub fn restart_with_storage(&mut self, is_restored: bool) -> Result<()> {
        (self.server, self.etcd) = (None, None);
        let [used, kept] = ["etcd", "etcd-kept"].map(|name| self.folder.join(name));
        let (from, to) = if is_restored { (kept, used) } else { (used, kept) };
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        run(Command::new("cp").arg("--recursive").args([&from, &to]))?;
        self.etcd = Some(etcd::start(&self.namespace, &self.folder)?);
        self.start_server()
    }

    /// Stops all its processes, as SIGSTOP does, or lets them go on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pause(&self, paused: bool) -> Result<()> {
        let all = self.controllers.iter().chain(&self.server).chain(&self.etcd);
        all.into_iter().try_for_each(|process| process.pause(paused))
    }

    /// Starts the server (again), and waits until it is ready.
    ///
    /// # Errors
    /// It does not get there.
    pub fn start_server(&mut self) -> Result<()> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "users": [DAEMON]}, {"level": "None"}],
        });
        fs::write(file("audit.yaml"), policy.to_string())?;
        let mut flags = server_flags(&self.folder, "RBAC", &self.service_range);
        flags.extend([
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
            // Pods are entered without a controller that would make their service accounts.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        let flags: Vec<&str> = flags.iter().chain(&self.more).map(String::as_str).collect();
        let program = programs::kubernetes("kube-apiserver")?;
        self.server = Some(self.namespace.spawn("kube-apiserver", &program, &flags)?);
        let start = Instant::now();
        while self.call("GET", "/readyz", None).is_err() {
            let server = self.server.as_mut().context("no server")?;
            if !server.is_running()? || start.elapsed() > PATIENCE {
                bail!("kube-apiserver is not ready:\n{}", fs::read_to_string(server.log())?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// For a daemon on any node: it may what [`grant`](Self::grant) has granted.
    pub fn daemon_kubeconfig(&self) -> PathBuf {
        self.folder.join("daemon-kubeconfig")
    }

    /// For `mcs-proxy uninstall`: the same.
    pub fn leaver_kubeconfig(&self) -> PathBuf {
        self.folder.join("leaver-kubeconfig")
    }

    /// Grants the daemon, and who takes it off, what `deploy/base` grants them.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn grant(&self) -> Result<()> {
        const RBAC: &str = include_str!("../../deploy/base/rbac.yaml");
        const UNINSTALL: &str = include_str!("../../deploy/base/uninstall.yaml");
        const NAMESPACE: &str = include_str!("../../deploy/base/namespace.yaml");
        let group = "/apis/rbac.authorization.k8s.io/v1";
        let own = format!("{group}/namespaces/mcs-proxy");
        self.create("/api/v1/namespaces", NAMESPACE)?;
        for manifest in [RBAC, UNINSTALL].into_iter().flat_map(|all| all.split("\n---\n")) {
            let kind = manifest.lines().find_map(|line| line.strip_prefix("kind: ")).context("no kind")?;
            match kind {
                // The harness's token says whose it is.
                "ServiceAccount" => {}
                "ClusterRole" => self.create(&format!("{group}/clusterroles"), manifest)?,
                "ClusterRoleBinding" => self.create(&format!("{group}/clusterrolebindings"), manifest)?,
                "Role" => self.create(&format!("{own}/roles"), manifest)?,
                "RoleBinding" => self.create(&format!("{own}/rolebindings"), manifest)?,
                other => bail!("deploy/base: what to do with a {other}?"),
            }
        }
        Ok(())
    }

    /// Whether the daemon may do this to the object of this name, or to all objects if it is empty.
    ///
    /// # Errors
    /// The server does not say.
    pub fn may(&self, verb: &str, group: &str, resource: &str, name: &str) -> Result<bool> {
        let namespace = if name.is_empty() { "" } else { "mcs-proxy" };
        let attributes =
            json!({"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": DAEMON, "resourceAttributes": attributes},
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = self.call("POST", path, Some(("application/json", &review.to_string())))?;
        let answer: Value = serde_json::from_str(&answer)?;
        answer["status"]["allowed"].as_bool().context("no answer")
    }

    /// What the daemon has asked of the server since it was started last, refused or not, as the audit log has it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn asked_by_the_daemon(&self) -> Result<Vec<Value>> {
        let log = fs::read_to_string(self.folder.join("audit.log"))?;
        let events = log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        Ok(events.into_iter().filter(|event| event["user"]["username"] == DAEMON).collect())
    }

    /// For an administrator on any node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Creates an object from its manifest: `/api/v1/namespaces/default/pods`.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn create(&self, path: &str, manifest: &str) -> Result<()> {
        self.call("POST", path, Some(("application/yaml", manifest))).map(drop)
    }

    /// Creates many objects, by their paths, in this order; a process for each would take longer than the server does.
    ///
    /// # Errors
    /// The server refuses one of them.
    pub fn create_all(&self, objects: &[(String, Value)]) -> Result<()> {
        let config: Vec<String> = objects
            .iter()
            .map(|(path, manifest)| {
                // A JSON string is quoted as curl wants it.
                let body = Value::String(manifest.to_string());
                format!(
                    "url = \"https://{FABRIC}:{PORT}{path}\"\nrequest = \"POST\"\ninsecure\nfail-with-body\n\
                     silent\nshow-error\nmax-time = 20\nheader = \"Authorization: Bearer {TOKEN}\"\n\
                     header = \"Content-Type: application/json\"\ndata-binary = {body}\n"
                )
            })
            .collect();
        let mut curl = self.namespace.command("curl")?;
        curl.args(["--fail-early", "--config", "-"]);
        let answers = with_input(&mut curl, &config.join("next\n"))?;
        ensure!(
            answers.status.success(),
            "{}",
            text(&answers.stdout).lines().rev().take(40).collect::<String>()
        );
        Ok(())
    }

    /// Puts Services of the namespace `default` and their addresses into the storage, past the server, and waits until
    /// it has seen them: with every Service that it is asked for it counts the addresses of all, which takes half an hour
    /// for 50,000. They must be complete: nothing is defaulted, and nothing checked.
    ///
    /// # Errors
    /// The storage refuses them, or the server does not see them.
    pub fn store_services(&self, services: &[Value]) -> Result<()> {
        let objects: Vec<(String, Value)> = services.iter().flat_map(stored).collect();
        let revision = etcd::put_all(&self.namespace, &objects)?;
        // Answered once it has come so far (https://kubernetes.io/docs/reference/using-api/api-concepts/, resource versions).
        let seen = format!("limit=1&resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.get(&format!("/api/v1/services?{seen}")) {
                // It has waited for three seconds.
                Err(error)
                    if error.to_string().contains("ResourceVersionTooLarge") && Instant::now() < deadline => {
                }
                answer => return answer.map(drop),
            }
        }
    }

    /// Changes some fields of an object: `/api/v1/namespaces/default/pods/NAME/status`.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        self.call("PATCH", path, Some(("application/merge-patch+json", &patch.to_string()))).map(drop)
    }

    /// # Errors
    /// There is no such object.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.call("DELETE", path, None).map(drop)
    }

    /// # Errors
    /// There is no such object.
    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.call("GET", path, None)?)?)
    }

    fn call(&self, method: &str, path: &str, body: Option<(&str, &str)>) -> Result<String> {
        call(&self.namespace, method, path, body)
    }
}

/// A Service and the address that it has taken, by their keys (KEP-1880 for the latter).
fn stored(service: &Value) -> [(String, Value); 2] {
    let (metadata, address) = (&service["metadata"], &service["spec"]["clusterIP"]);
    let [name, address] = [&metadata["name"], address].map(|value| value.as_str().unwrap_or_default());
    let taken = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address,
            "creationTimestamp": metadata["creationTimestamp"],
            "uid": metadata["uid"],
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": "default", "name": name } },
    });
    [
        (format!("/registry/ipaddresses/{address}"), taken),
        (format!("/registry/services/specs/default/{name}"), service.clone()),
    ]
}

/// Asks the server something as an administrator.
pub(crate) fn call(
    namespace: &Namespace,
    method: &str,
    path: &str,
    body: Option<(&str, &str)>,
) -> Result<String> {
    let mut curl = namespace.command("curl")?;
    curl.args(["--silent", "--show-error", "--insecure", "--fail-with-body", "--max-time", "20"])
        .args(["--request", method, "--header", &format!("Authorization: Bearer {TOKEN}")])
        .arg(format!("https://{FABRIC}:{PORT}{path}"));
    if let Some((kind, _)) = body {
        curl.args(["--header", &format!("Content-Type: {kind}"), "--data-binary", "@-"]);
    }
    let output = with_input(&mut curl, body.map_or("", |(_, text)| text))?;
    let text = text(&output.stdout);
    if !output.status.success() {
        bail!("{method} {path}: {} {text}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(text)
}

/// The keys of service accounts' tokens.
pub(crate) fn make_keys(folder: &Path) -> Result<()> {
    let key = folder.join("sa.key");
    run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?;
    run(Command::new("openssl")
        .args(["rsa", "-pubout", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(folder.join("sa.pub")))?;
    Ok(())
}

pub(crate) fn kubeconfig(token: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: harness
  cluster: {{server: "https://{FABRIC}:{PORT}", insecure-skip-tls-verify: true}}
users:
- name: admin
  user: {{token: {token}}}
contexts:
- name: harness
  context: {{cluster: harness, user: admin}}
current-context: harness
"#
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program says that reads this text.
pub(crate) fn with_input(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let stdin = child.stdin.take().context("no standard input")?;
    thread::scope(|scope| {
        // Apart from the reading of what it says: a pipe that is full stops it.
        scope.spawn(move || { &stdin }.write_all(input.as_bytes()));
        child.wait_with_output().with_context(|| format!("{command:?}"))
    })
}
