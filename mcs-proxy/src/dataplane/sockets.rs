//! The programs of the socket path on the node's cgroup.
//!
//! Each is a link of its own, pinned under the hook's name: it outlives the daemon, and the next one puts its program
//! behind it. A kernel or a node that refuses them is served by the packet path alone.

use super::{
    links::{LinkError, unpin},
    loader::{LoadError, Programs},
    pins::PinDir,
    sys::{self, Access, SysError},
};
use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Where the kernel calls a program of ours on behalf of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketHook {
    Connect4,
    Connect6,
    SendMsg4,
    SendMsg6,
    RecvMsg4,
    RecvMsg6,
    GetPeerName4,
    GetPeerName6,
}

impl SocketHook {
    /// Those that answer before those that ask: no program is to see a backend's address where it called a VIP.
    pub const ALL: [Self; 8] = [
        Self::GetPeerName4,
        Self::GetPeerName6,
        Self::RecvMsg4,
        Self::RecvMsg6,
        Self::SendMsg4,
        Self::SendMsg6,
        Self::Connect4,
        Self::Connect6,
    ];

    /// Name of the program, and of the link's pin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::SendMsg4 => "sendmsg4",
            Self::SendMsg6 => "sendmsg6",
            Self::RecvMsg4 => "recvmsg4",
            Self::RecvMsg6 => "recvmsg6",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
        }
    }

    /// `enum bpf_attach_type`.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::SendMsg4 => 14,
            Self::SendMsg6 => 15,
            Self::RecvMsg4 => 19,
            Self::RecvMsg6 => 20,
            Self::GetPeerName4 => 29,
            Self::GetPeerName6 => 30,
        }
    }
}

/// The socket path can't serve; packets are served all the same.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    #[error(
        "no cgroup2 is mounted here: mount it (`mount -t cgroup2 none /sys/fs/cgroup`; in a pod, mount the host's \
         /sys/fs/cgroup) and name it by --cgroup"
    )]
    NoCgroup2,
    #[error("--cgroup {path}: {source}")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("--cgroup {path} is not a directory of a cgroup2 file system (`findmnt -t cgroup2` lists those)")]
    NotCgroup2 { path: PathBuf },
    #[error("this kernel does not tell network namespaces apart for sockets (Linux 5.14 does): {0}")]
    NoCookie(SysError),
    #[error("this kernel does not have the hook `{hook}`", hook = .hook.as_str())]
    NoHook { hook: SocketHook },
    #[error("{hook}: {source}", hook = .hook.as_str())]
    Attach { hook: SocketHook, source: SysError },
    #[error(transparent)]
    Program(#[from] LoadError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Attaches every program to the cgroup, or renews those that are there. On failure none is left.
pub fn attach(programs: &mut Programs, pins: &PinDir, cgroup: &Path) -> Result<(), SocketsError> {
    let error = |source| SocketsError::Cgroup { path: cgroup.to_owned(), source };
    sys::netns_cookie().map_err(SocketsError::NoCookie)?;
    if !sys::is_cgroup2(cgroup).map_err(|failure| error(failure.source))? {
        return Err(SocketsError::NotCgroup2 { path: cgroup.to_owned() });
    }
    let directory = File::open(cgroup).map_err(error)?;
    let id = directory.metadata().map_err(error)?.ino();
    let attached = SocketHook::ALL.into_iter().try_for_each(|hook| {
        let program = programs.socket(hook)?;
        let path = pins.socket_link(hook);
        if let Ok(link) = sys::object_get(&path, Access::ReadWrite) {
            let is_this =
                sys::cgroup_link_info(link.as_fd()).is_ok_and(|info| info == Some((id, hook.number())));
            if is_this && sys::link_update(link.as_fd(), program).is_ok() {
                return Ok(());
            }
            unpin(&path)?;
        }
        let link =
            sys::cgroup_link_create(program, directory.as_fd(), hook.number()).map_err(
                |source| match source.errno() {
                    Some(libc::EINVAL) => SocketsError::NoHook { hook },
                    Some(_) | None => SocketsError::Attach { hook, source },
                },
            )?;
        sys::object_pin(link.as_fd(), &path)
            .map_err(|failure| LinkError::Pin { path, source: failure.into() })?;
        Ok(())
    });
    if attached.is_err() {
        detach(pins)?;
    }
    attached
}

/// Takes every program off, those that ask first.
pub fn detach(pins: &PinDir) -> Result<(), SocketsError> {
    Ok(SocketHook::ALL.into_iter().rev().try_for_each(|hook| unpin(&pins.socket_link(hook)))?)
}

/// The root of this process's cgroup namespace: where its cgroup2 is mounted.
pub fn default_cgroup() -> Result<PathBuf, SocketsError> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts =
        fs::read_to_string(path).map_err(|source| SocketsError::Cgroup { path: path.to_owned(), source })?;
    cgroup2_of(&mounts).ok_or(SocketsError::NoCgroup2)
}

/// proc_pid_mountinfo(5): the mount point is the fifth field, the type follows a lone hyphen. A mount of a part of the
/// hierarchy has another root (fourth field) than `/`.
fn cgroup2_of(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && kind.starts_with("cgroup2 ")).then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_among_others() {
        let mounts = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
                      31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      32 25 0:28 /part /mnt/part rw shared:9 - cgroup2 cgroup2 rw\n\
                      33 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_of(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_of("25 30 0:23 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
