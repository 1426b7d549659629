//! A cluster's part of the cgroup hierarchies: `<hierarchy>/<cluster>/<node>`, on cgroup2 alone or on hybrid machines.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    pub(crate) v1: Vec<PathBuf>,
    pub(crate) v2: Option<PathBuf>,
}

impl Hierarchies {
    pub(crate) fn find() -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?))
    }

    fn parse(mounts: &str) -> Self {
        let (mut v1, mut v2) = (Vec::new(), None);
        for mount in mounts.lines() {
            let mut fields = mount.split(' ').skip(1);
            let (Some(path), Some(kind)) = (fields.next(), fields.next()) else { continue };
            match kind {
                "cgroup" if path.starts_with("/sys/fs/cgroup/") => v1.push(PathBuf::from(path)),
                "cgroup2" if path.starts_with("/sys/fs/cgroup") => v2 = Some(PathBuf::from(path)),
                _ => {}
            }
        }
        Self { v1, v2 }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().chain(&self.v2)
    }

    /// Makes a node's groups.
    pub(crate) fn make(&self, cluster: &str, node: &str) -> Result<()> {
        for hierarchy in self.all() {
            let group = hierarchy.join(cluster).join(node);
            fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        }
        for hierarchy in &self.v1 {
            // A group without these takes no process.
            for parameter in ["cpuset.cpus", "cpuset.mems"] {
                let Ok(value) = fs::read_to_string(hierarchy.join(parameter)) else { continue };
                for group in [hierarchy.join(cluster), hierarchy.join(cluster).join(node)] {
                    fs::write(group.join(parameter), &value).with_context(|| group.display().to_string())?;
                }
            }
        }
        if let Some(hierarchy) = &self.v2 {
            for group in [hierarchy.clone(), hierarchy.join(cluster)] {
                delegate(&group);
            }
            let own = hierarchy.join(cluster).join(node).join(SYSTEM);
            fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        }
        Ok(())
    }
}

/// Where a node's own processes are in cgroup2: those of pods are beside it.
pub(crate) const SYSTEM: &str = "system";

/// Gives the children of a group of cgroup2 the controllers that it has; some cannot be given where v1 has them.
fn delegate(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        drop(fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")));
    }
}

/// Removes a cluster's groups, or those of all clusters whose name the function wants; their processes have ended or do
/// so now.
pub(crate) fn remove(own: impl Fn(&str) -> bool) {
    let Ok(hierarchies) = Hierarchies::find() else { return };
    for hierarchy in hierarchies.all() {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&own) {
                remove_tree(&entry.path());
            }
        }
    }
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let start = Instant::now();
    // Processes that were killed are in it until they are gone.
    while fs::remove_dir(group).is_err() && group.exists() && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_machines_are_told_apart() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup2 /run/elsewhere cgroup2 rw 0 0\n";
        let found = Hierarchies::parse(hybrid);
        assert_eq!(found.v1, [Path::new("/sys/fs/cgroup/cpu")]);
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let pure = Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert_eq!((pure.v1, pure.v2), (vec![], Some("/sys/fs/cgroup".into())));
    }
}
