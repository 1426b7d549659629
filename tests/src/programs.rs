//! Where the programs under test are.

use anyhow::{Context, Result, bail};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The variable that names the binary of mcs-proxy.
pub const MCS_PROXY: &str = "MCS_PROXY_BIN";
const HELLO_POD: &str = "HELLO_POD_BIN";
const CLUSTER_NODE: &str = "CLUSTER_NODE_BIN";

/// The folders with Kubernetes' programs and with a cluster's other parts, for who does not get them by variables.
static FOLDERS: OnceLock<[PathBuf; 2]> = OnceLock::new();

/// Says where Kubernetes' programs are, and a cluster's other parts, whatever the variables say.
pub fn look_in(kubernetes: &Path, cluster: &Path) {
    FOLDERS.get_or_init(|| [kubernetes.to_owned(), cluster.to_owned()]);
}

/// The folder with a cluster's parts, if any is named.
pub(crate) fn cluster_parts() -> Option<OsString> {
    FOLDERS.get().map(|[_, cluster]| cluster.into()).or_else(|| env::var_os(crate::cluster::PARTS))
}

/// # Errors
/// It is not built.
pub fn mcs_proxy() -> Result<PathBuf> {
    find(MCS_PROXY, "mcs-proxy")
}

pub(crate) fn hello_pod() -> Result<PathBuf> {
    find(HELLO_POD, "hello-pod")
}

pub(crate) fn cluster_node() -> Result<PathBuf> {
    find(CLUSTER_NODE, "cluster-node")
}

/// One of Kubernetes' programs.
///
/// # Errors
/// It is not there.
pub fn kubernetes(name: &str) -> Result<PathBuf> {
    let named = FOLDERS.get().map(|[kubernetes, _]| kubernetes.into());
    let folder = named.or_else(|| env::var_os("KUBEBUILDER_ASSETS")).context(
        "KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver: `cargo xtask test` builds one",
    )?;
    let path = Path::new(&folder).join(name);
    if !path.exists() {
        bail!("{} is missing: `cargo xtask setup --for test` builds it", path.display());
    }
    Ok(path)
}

/// The client in Go that `cargo xtask test` builds.
///
/// # Errors
/// It is not built.
pub fn goclient() -> Result<PathBuf> {
    env::var_os("GOCLIENT_BIN")
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .context("GOCLIENT_BIN names no program: `cargo xtask test` builds it from tests/goclient, with Go")
}

/// A program that is installed, of this package of Debian's.
///
/// # Errors
/// It is missing; the error says what to install.
pub fn installed(program: &str, package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{program} is missing: `cargo xtask setup --for test` installs it (on Debian: {package})")
        })
}

/// What the variable says, else beside our own executable, as cargo lays them (tests are a folder deeper).
fn find(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let own = env::current_exe()?;
    for folder in own.ancestors().skip(1).take(2) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built: `cargo xtask test` builds it, or set {variable}")
}
