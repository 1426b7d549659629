//! The cgroup of the socket path, and whom its programs reach there: asked before they are attached, and by whoever checks
//! a node without changing it.

use super::{SocketHook, SocketsError};
use crate::dataplane::sys;
use mcs_proxy_ebpf::abi::SocketScope;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A cgroup2 that this kernel can attach every program to, as far as can be told beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub cgroup: PathBuf,
    pub reach: Reach,
}

/// Whose processes are in a cgroup. Programs are called for those beneath it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The machine's: it is the root of the hierarchy.
    Machine,
    /// This process's and others'.
    Shared,
    /// This process's alone: what a container has in place of the node's cgroup.
    OwnAlone,
    /// Others' alone.
    Foreign,
}

/// Says what stands in the way of the socket path, without changing anything: as `--cgroup` has it, or without one where
/// cgroup2 is mounted.
///
/// # Errors
/// There is no such cgroup2, or the kernel does not have a hook. Packets are served all the same.
pub fn judge(cgroup: Option<&Path>) -> Result<Place, SocketsError> {
    sys::netns_cookie().map_err(SocketsError::NoCookie)?;
    let place = find(cgroup)?;
    SocketHook::ALL.into_iter().try_for_each(|hook| {
        sys::probe_socket_hook(hook.number()).map_err(|source| match source.errno() {
            Some(libc::EINVAL) => SocketsError::NoHook { hook },
            Some(_) | None => SocketsError::Probe { hook, source },
        })
    })?;
    Ok(place)
}

impl Place {
    /// Why processes that call may not be served, if so: `--socket-path` is `scope`.
    #[must_use]
    pub fn remark(&self, scope: SocketScope) -> Option<String> {
        let cgroup = self.cgroup.display();
        match (self.reach, scope) {
            (Reach::Machine | Reach::Shared, _) => None,
            (Reach::OwnAlone, _) => Some(format!(
                "the cgroup {cgroup} has mcs-proxy in it and nobody else: no socket of the node's processes is \
                 translated; mount the node's /sys/fs/cgroup (in a pod: as a hostPath) and name it by --cgroup"
            )),
            (Reach::Foreign, SocketScope::Host) => Some(format!(
                "--cgroup {cgroup} is a nested cgroup that mcs-proxy is not in: of the node's processes those outside \
                 of it are not served; leave --cgroup out, or name one above"
            )),
            // Whose sockets are served is what the flag is for then.
            (Reach::Foreign, SocketScope::All) => None,
        }
    }
}

fn find(cgroup: Option<&Path>) -> Result<Place, SocketsError> {
    let mounts = read("/proc/self/mountinfo")?;
    let cgroup = match cgroup {
        Some(cgroup) => cgroup.to_owned(),
        None => root_mount(&mounts).ok_or(SocketsError::NoCgroup2)?,
    };
    let error = |source| SocketsError::Cgroup { path: cgroup.clone(), source };
    if !sys::is_cgroup2(&cgroup).map_err(|failure| error(failure.source))? || !cgroup.is_dir() {
        return Err(SocketsError::NotCgroup2 { path: cgroup });
    }
    let path = fs::canonicalize(&cgroup).map_err(error)?;
    let is_root = fs::metadata(&path).map_err(error)?.ino() == ROOT_INODE;
    let has_children = || fs::read_dir(&path).is_ok_and(|mut all| all.any(|one| is_directory(one.as_ref())));
    let own = own_cgroup(&read("/proc/self/cgroup")?);
    let reach = match (HierarchyPath::of(&path, &mounts), own) {
        _ if is_root => Reach::Machine,
        (Some(place), Some(own)) if place == own && !has_children() => Reach::OwnAlone,
        (Some(place), Some(own)) if !place.contains(&own) => Reach::Foreign,
        _ => Reach::Shared,
    };
    Ok(Place { cgroup, reach })
}

/// `cgroup_setup_root` gives the root of a hierarchy the first number of its file system.
const ROOT_INODE: u64 = 1;

fn read(path: &str) -> Result<String, SocketsError> {
    fs::read_to_string(path).map_err(|source| SocketsError::Cgroup { path: path.into(), source })
}

fn is_directory(entry: Result<&fs::DirEntry, &io::Error>) -> bool {
    entry.is_ok_and(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// The mounts of a cgroup2 in proc_pid_mountinfo(5), as (root, mount point): the fourth field and the fifth; the type
/// follows a lone hyphen.
fn cgroup2_mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let both = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then_some(both)
    })
}

/// The root of this process's cgroup namespace. A mount of a part of the hierarchy has another root than `/`.
fn root_mount(mountinfo: &str) -> Option<PathBuf> {
    cgroup2_mounts(mountinfo).find(|(root, _)| *root == "/").map(|(_, point)| PathBuf::from(point))
}

/// proc_pid_cgroup(5): the line of cgroup2 has the number 0 and no controllers.
fn own_cgroup(text: &str) -> Option<HierarchyPath> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(HierarchyPath::parse)
}

/// A cgroup as seen from the root of this process's cgroup namespace, which the kernel writes with as few `..` as there can
/// be (`kernfs_path_from_node`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct HierarchyPath {
    up: usize,
    down: Vec<String>,
}

impl HierarchyPath {
    fn parse(text: &str) -> Self {
        let words = || text.split('/').filter(|word| !word.is_empty());
        let up = words().take_while(|word| *word == "..").count();
        Self { up, down: words().skip(up).map(str::to_owned).collect() }
    }

    /// Of a directory, by the mount that it is on.
    fn of(path: &Path, mountinfo: &str) -> Option<Self> {
        let mounts = cgroup2_mounts(mountinfo).filter(|(_, point)| path.starts_with(point));
        // Of mounts on one another the last one shows.
        let (root, point) = mounts.max_by_key(|(_, point)| point.len())?;
        let beneath = path.strip_prefix(point).ok()?;
        Some(Self::parse(&format!("{root}/{}", beneath.to_str()?)))
    }

    fn contains(&self, other: &Self) -> bool {
        if self.down.is_empty() {
            self.up >= other.up
        } else {
            self.up == other.up && other.down.starts_with(&self.down)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
                          31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                          32 25 0:28 /part /mnt/part rw shared:9 - cgroup2 cgroup2 rw\n\
                          33 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n\
                          34 25 0:28 /../.. /host/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        assert_eq!(root_mount(MOUNTS), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(root_mount("25 30 0:23 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn whose_cgroup_it_is_follows_from_the_paths_in_the_hierarchy() {
        let contains = |cgroup: &str, own: &str| {
            let place = HierarchyPath::of(Path::new(cgroup), MOUNTS).unwrap();
            place.contains(&own_cgroup(&format!("4:cpu:/a\n0::{own}\n")).unwrap())
        };
        for (cgroup, own) in [
            ("/sys/fs/cgroup/unified", "/"),
            ("/sys/fs/cgroup/unified", "/system.slice/mcs-proxy.service"),
            ("/sys/fs/cgroup/unified/system.slice", "/system.slice/mcs-proxy.service"),
            ("/mnt/part", "/part/of/it"),
            ("/mnt/part/of", "/part/of"),
            // A pod that has the node's cgroup mounted beside its own.
            ("/host/cgroup", "/"),
            ("/host/cgroup", "/../moved"),
        ] {
            assert!(contains(cgroup, own), "{cgroup} has {own}");
        }
        for (cgroup, own) in [
            ("/sys/fs/cgroup/unified/system.slice", "/"),
            ("/sys/fs/cgroup/unified/system.slice", "/system.slice-2/mcs-proxy"),
            ("/sys/fs/cgroup/unified", "/../moved"),
            ("/mnt/part/of", "/part"),
            ("/host/cgroup/other", "/"),
        ] {
            assert!(!contains(cgroup, own), "{cgroup} does not have {own}");
        }
    }

    #[test]
    fn a_hook_that_this_kernel_lacks_is_told_from_those_that_it_has() {
        // Numbers of `enum bpf_attach_type`, of which no kernel has so many.
        let error = sys::probe_socket_hook(9_999).unwrap_err();
        let said = error.errno();
        // Without the rights it can't be asked.
        if said != Some(libc::EPERM) {
            assert_eq!(said, Some(libc::EINVAL), "{error}");
            for hook in SocketHook::ALL {
                sys::probe_socket_hook(hook.number()).unwrap();
            }
        }
    }

    #[test]
    fn a_remark_names_the_cgroup_and_the_way_out() {
        let remark = |reach, scope| Place { cgroup: "/a/cgroup".into(), reach }.remark(scope);
        let (host, all) = (SocketScope::Host, SocketScope::All);
        for scope in [host, all] {
            assert_eq!([Reach::Machine, Reach::Shared].map(|reach| remark(reach, scope)), [None, None]);
            let own = remark(Reach::OwnAlone, scope).unwrap();
            assert!(own.contains("/a/cgroup") && own.contains("hostPath"), "{own}");
        }
        assert!(remark(Reach::Foreign, host).unwrap().contains("--cgroup /a/cgroup is a nested cgroup"));
        assert_eq!(remark(Reach::Foreign, all), None);
    }
}
