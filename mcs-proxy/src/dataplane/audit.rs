//! What is pinned where ours is to be: nothing is adopted, or overwritten, that is not what its name says.

use super::{
    loader::LoadError,
    pins::PinDir,
    sys::{self, Access},
};
use mcs_proxy_ebpf::abi::MapName;
use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

/// What a pin is, or what else is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nothing,
    Map,
    Program,
    Link,
    Directory,
    SymbolicLink,
    /// Another file, or nothing that can be opened.
    Other,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Map => "a map",
            Self::Program => "a program",
            Self::Link => "a link",
            Self::Directory => "a directory",
            Self::SymbolicLink => "a symbolic link",
            Self::Other => "something that cannot be opened",
        }
    }
}

/// Symbolic links are not followed. The kernel names what a descriptor is in `/proc/self/fd`.
pub fn kind(path: &Path) -> io::Result<Kind> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Nothing),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        return Ok(Kind::Directory);
    }
    if metadata.is_symlink() {
        return Ok(Kind::SymbolicLink);
    }
    let object = match sys::object_get(path, Access::ReadWrite) {
        Ok(object) => object,
        // What the file is has nothing to do with it.
        Err(error)
            if matches!(
                error.errno(),
                Some(libc::EROFS | libc::EPERM | libc::ENOMEM | libc::EMFILE | libc::ENFILE)
            ) =>
        {
            return Err(error.into());
        }
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Kind::Nothing),
        Err(_) => return Ok(Kind::Other),
    };
    let name = fs::read_link(format!("/proc/self/fd/{}", object.as_fd().as_raw_fd()))?;
    let name = name.to_string_lossy();
    Ok(if name.contains("bpf-map") {
        Kind::Map
    } else if name.contains("bpf-prog") {
        Kind::Program
    } else if name.contains("bpf-link") || name.contains("bpf_link") {
        Kind::Link
    } else {
        Kind::Other
    })
}

/// Refuses, by its name, whatever is not of the kind that belongs there.
pub fn audit(dir: &PinDir) -> Result<(), LoadError> {
    expect(dir.path().to_owned(), Kind::Directory, dir)?;
    for map in MapName::ALL {
        expect(dir.map(map), Kind::Map, dir)?;
    }
    expect(dir.clock(), Kind::Program, dir)?;
    for links in [dir.links(), dir.sockets()] {
        expect(links.clone(), Kind::Directory, dir)?;
        let entries = match fs::read_dir(&links) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(LoadError::Pin { path: links, source }),
        };
        for entry in entries {
            let entry = entry.map_err(|source| LoadError::Pin { path: links.clone(), source })?;
            expect(entry.path(), Kind::Link, dir)?;
        }
    }
    Ok(())
}

fn expect(path: PathBuf, wanted: Kind, dir: &PinDir) -> Result<(), LoadError> {
    match kind(&path) {
        Ok(Kind::Nothing) => Ok(()),
        Ok(found) if found == wanted => Ok(()),
        Ok(found) => Err(LoadError::ForeignPin {
            path,
            difference: format!("it is {} and should be {}", found.name(), wanted.name()),
            remedy: format!(
                "nothing was changed, and what runs goes on; remove it, or all of {} by `mcs-proxy cleanup` (connections that \
                 go through mcs-proxy end)",
                dir.path().display()
            ),
        }),
        Err(source) => Err(LoadError::Pin { path, source }),
    }
}
