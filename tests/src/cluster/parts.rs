use crate::programs;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The variable that names the folder with what a cluster takes beyond `KUBEBUILDER_ASSETS`: kube-scheduler, kubelet and
/// kubectl, helm, Debian's packages unpacked in `debian`, images in `images`.
pub const PARTS: &str = "MCS_PROXY_CLUSTER_PARTS";

/// Where everything is that a cluster is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
}

impl Parts {
    /// # Errors
    /// The variable is not set, or names a folder that is not complete.
    pub fn find() -> Result<Self> {
        let missing = || {
            format!("{PARTS} names no folder with a cluster's parts: `cargo xtask test cluster` makes one")
        };
        let folder = PathBuf::from(programs::cluster_parts().with_context(missing)?);
        let parts = Self { folder };
        for name in
            ["kube-scheduler", "kubelet", "kubectl", "helm", "debian/usr/bin/containerd", "images/pause.tar"]
        {
            if !parts.folder.join(name).exists() {
                bail!("{}: {name} is missing: `cargo xtask setup --for cluster`", parts.folder.display());
            }
        }
        Ok(parts)
    }

    /// One of Kubernetes' programs, or helm.
    ///
    /// # Errors
    /// It is not there.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let own = self.folder.join(name);
        if own.exists() { Ok(own) } else { programs::kubernetes(name) }
    }

    /// What Debian's packages would have put at `/`.
    pub(crate) fn debian(&self) -> PathBuf {
        self.folder.join("debian")
    }

    /// The images that every node has, `pause` first.
    pub(crate) fn images(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("images");
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut images: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .collect();
        images.sort_by_key(|path| (!path.ends_with("pause.tar"), path.clone()));
        Ok(images)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
