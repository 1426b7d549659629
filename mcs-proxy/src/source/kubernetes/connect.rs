use crate::observe::with_causes;
use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where to look for a kubeconfig, in this order; if there is none, in the cluster that this process runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locations {
    /// `--kubeconfig`
    pub flag: Option<PathBuf>,
    /// `$KUBECONFIG`: paths, separated by colons, whose contents are merged.
    pub variable: Option<OsString>,
    /// `~/.kube/config`, if it exists.
    pub home: Option<PathBuf>,
}

impl Locations {
    /// As kubectl finds them.
    #[must_use]
    pub fn from_environment(flag: Option<PathBuf>) -> Self {
        let home = env::home_dir().map(|home| home.join(".kube").join("config"));
        Self { flag, variable: env::var_os("KUBECONFIG"), home: home.filter(|path| path.exists()) }
    }
}

/// Why the source cannot start.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    #[error("{origin}: {reason}; mend the file or name another by --kubeconfig PATH")]
    Kubeconfig { origin: String, reason: String },
    #[error(
        "no kubeconfig (--kubeconfig, $KUBECONFIG, ~/.kube/config), and not in a cluster's pod: {0}; \
         name one by --kubeconfig PATH, or use --source directory=PATH"
    )]
    Nowhere(InClusterError),
    #[error("{server}: its credentials cannot be used: {source}; see the `user` in the kubeconfig")]
    Client { server: String, source: Box<kube::Error> },
}

/// A reading of the socket may take as long as a watch is quiet: 290 s, after which the API server ends it.
const SILENCE: Duration = Duration::from_secs(300);
const CONNECT: Duration = Duration::from_secs(10);

/// A client, and how to name its server to people: its URL and where that came from. Does not connect yet.
pub async fn client(locations: &Locations) -> Result<(Client, String), KubernetesError> {
    let (mut config, origin) = config(locations).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    let server = format!("{} ({origin})", config.cluster_url);
    match Client::try_from(config) {
        Ok(client) => Ok((client, server)),
        Err(source) => Err(KubernetesError::Client { server, source: Box::new(source) }),
    }
}

async fn config(locations: &Locations) -> Result<(Config, String), KubernetesError> {
    let Some((paths, origin)) = paths(locations) else {
        let config = Config::incluster().map_err(KubernetesError::Nowhere)?;
        return Ok((config, "in-cluster".to_owned()));
    };
    let failed = |error: KubeconfigError| {
        // The first line: where YAML is broken, more of them quote the file, and what is broken may be a secret.
        let reason = with_causes(&error).lines().next().unwrap_or_default().to_owned();
        KubernetesError::Kubeconfig { origin: origin.clone(), reason }
    };
    let merge = |all: Kubeconfig, path: &PathBuf| all.merge(Kubeconfig::read_from(path)?);
    let kubeconfig = paths.iter().try_fold(Kubeconfig::default(), merge).map_err(failed)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?;
    Ok((config, origin))
}

/// The kubeconfigs to merge, and how to name them to people.
fn paths(locations: &Locations) -> Option<(Vec<PathBuf>, String)> {
    let Locations { flag, variable, home } = locations;
    let named = |path: &Path, by: &str| (vec![path.to_owned()], format!("{by}{}", path.display()));
    if let Some(path) = flag {
        return Some(named(path, "--kubeconfig "));
    }
    if let Some(variable) = variable {
        let paths: Vec<_> = env::split_paths(variable).filter(|path| !path.as_os_str().is_empty()).collect();
        if !paths.is_empty() {
            return Some((paths, format!("KUBECONFIG={}", variable.display())));
        }
    }
    home.as_ref().map(|path| named(path, ""))
}
