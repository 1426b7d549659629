//! The programs of the socket path on the node's cgroup.
//!
//! Each is a link of its own, pinned under the hook's name: it outlives the daemon, and the next one puts its program
//! behind it. A kernel or a node that refuses them is served by the packet path alone.

mod place;

pub use place::{Place, Reach, judge};

use super::{
    links::{LinkError, unpin},
    loader::{LoadError, Programs},
    pins::PinDir,
    sys::{self, Access, SysError},
};
use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
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
    #[error("this kernel does not have the hook `{hook}` (it takes CONFIG_CGROUP_BPF)", hook = .hook.as_str())]
    NoHook { hook: SocketHook },
    #[error("whether this kernel has the hook `{hook}` can't be found out: {source}", hook = .hook.as_str())]
    Probe { hook: SocketHook, source: SysError },
    #[error(
        "{path}: it, or a cgroup above it, has a program at the hook `{hook}` that allows no other beside it (attached \
         without BPF_F_ALLOW_MULTI; `bpftool cgroup tree` shows which): take it off, or name another cgroup by --cgroup",
        hook = .hook.as_str()
    )]
    Taken { hook: SocketHook, path: PathBuf },
    #[error("{hook}: {source}", hook = .hook.as_str())]
    Attach { hook: SocketHook, source: SysError },
    #[error(transparent)]
    Program(#[from] LoadError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl SocketsError {
    /// Whether it may be over in a while, rather than lie in how this node is: for want of memory, say.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Probe { .. } | Self::Attach { .. } | Self::Program(_) | Self::Link(_) => true,
            Self::NoCgroup2
            | Self::Cgroup { .. }
            | Self::NotCgroup2 { .. }
            | Self::NoCookie(_)
            | Self::NoHook { .. }
            | Self::Taken { .. } => false,
        }
    }
}

/// Attaches every program to the cgroup that was found fit, or renews those that are there. On failure all are there, be it an
/// earlier daemon's, which serve by the same maps, or none.
pub fn attach(programs: &mut Programs, pins: &PinDir, place: &Place) -> Result<(), SocketsError> {
    let attached = attach_all(programs, pins, place);
    if attached.is_err() && !has_all(pins) {
        detach(pins)?;
    }
    attached
}

/// Whether the programs of all hooks are pinned.
#[must_use]
pub fn has_all(pins: &PinDir) -> bool {
    SocketHook::ALL.iter().all(|&hook| pins.socket_link(hook).exists())
}

fn attach_all(
    programs: &mut Programs,
    pins: &PinDir,
    Place { cgroup, .. }: &Place,
) -> Result<(), SocketsError> {
    let error = |source| SocketsError::Cgroup { path: cgroup.clone(), source };
    let directory = File::open(cgroup).map_err(error)?;
    let id = directory.metadata().map_err(error)?.ino();
    SocketHook::ALL.into_iter().try_for_each(|hook| {
        let program = programs.socket(hook)?;
        let path = pins.socket_link(hook);
        let attach_error = |source| SocketsError::Attach { hook, source };
        match sys::object_get(&path, Access::ReadWrite) {
            Ok(link) => {
                let info = sys::cgroup_link_info(link.as_fd()).map_err(attach_error)?;
                if info == Some((id, hook.number())) {
                    match sys::link_update(link.as_fd(), program) {
                        Ok(()) => return Ok(()),
                        // Somebody has detached it.
                        Err(error) if matches!(error.errno(), Some(libc::ENOLINK | libc::ENOENT)) => {}
                        Err(source) => return Err(attach_error(source)),
                    }
                }
                unpin(&path)?;
            }
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            Err(source) => return Err(attach_error(source)),
        }
        let link =
            sys::cgroup_link_create(program, directory.as_fd(), hook.number()).map_err(
                |source| match source.errno() {
                    Some(libc::EPERM) => SocketsError::Taken { hook, path: cgroup.clone() },
                    Some(_) | None => SocketsError::Attach { hook, source },
                },
            )?;
        sys::object_pin(link.as_fd(), &path)
            .map_err(|failure| LinkError::Pin { path, source: failure.into() })?;
        Ok(())
    })
}

/// Takes every program off, those that ask first.
pub fn detach(pins: &PinDir) -> Result<(), SocketsError> {
    Ok(SocketHook::ALL.into_iter().rev().try_for_each(|hook| unpin(&pins.socket_link(hook)))?)
}
