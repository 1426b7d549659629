//! What daemons of other layouts have pinned beside ours.
//!
//! When a daemon of another layout takes over, its programs are first in the chain, and those of the old layout stay behind
//! them: a connection that they opened is unknown to ours, passes, and is theirs. Once our maps hold everything, theirs
//! are emptied of Services, so that they open nothing any more; when their last flow is gone, they go. Nothing of their maps is
//! known but what has not changed since the first layout: which of them are hashes of VIPs, Services and flows.

use super::{
    leftovers::{self, LeftoverError},
    links::{LinkError, unpin},
    pins::PinDir,
    sys::{self, Access, Entries, SysError},
};
use mcs_proxy_ebpf::abi::{ABI_VERSION, MapName};
use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("{path}: {source}")]
    Path { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Map { path: PathBuf, source: SysError },
    #[error(transparent)]
    Links(#[from] LeftoverError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A layout that is not ours and has something pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub version: u32,
    dir: PathBuf,
}

/// A layout whose flows come to their end.
#[derive(Debug)]
pub struct Draining {
    layout: Layout,
    /// When each flow was first seen as it is, by a hash of it: one that is used changes about once a second.
    seen: HashMap<Vec<u8>, (u64, Instant)>,
    closed: bool,
}

/// All but ours, the oldest first.
pub fn others(pins: &PinDir) -> Result<Vec<Layout>, LayoutError> {
    let root = pins.root();
    let failed = |source| LayoutError::Path { path: root.to_owned(), source };
    let mut found = Vec::new();
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let dir = entry.map_err(failed)?.path();
        let version = leftovers::layout(&dir).filter(|&version| version != ABI_VERSION);
        found.extend(version.filter(|_| has_pins(&dir)).map(|version| Layout { version, dir }));
    }
    found.sort_by_key(|layout| layout.version);
    Ok(found)
}

/// Empty directories are nobody's state.
fn has_pins(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let path = entry.path();
            if path.is_dir() { has_pins(&path) } else { true }
        })
    })
}

/// Takes the programs off that are pinned beneath a directory.
pub fn detach(dir: &Path) -> Result<(), LayoutError> {
    Ok(leftovers::links_in(dir)?.iter().try_for_each(|path| unpin(path))?)
}

/// Takes the programs off that are pinned beneath a directory, and everything of it away.
pub fn remove(dir: &Path) -> Result<(), LayoutError> {
    detach(dir)?;
    fs::remove_dir_all(dir).map_err(|source| LayoutError::Path { path: dir.to_owned(), source })
}

impl Layout {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Takes its programs off; its maps stay.
    pub fn detach(&self) -> Result<(), LayoutError> {
        detach(&self.dir)
    }

    fn with<T>(
        &self,
        map: MapName,
        act: impl FnOnce(&Entries<'_>) -> Result<T, SysError>,
    ) -> Result<Option<T>, LayoutError> {
        let path = self.dir.join(map.as_str());
        let failed = |source| LayoutError::Map { path: path.clone(), source };
        let fd = match sys::object_get(&path, Access::ReadWrite) {
            Ok(fd) => fd,
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // None of these is a per-CPU map.
        Entries::of(fd.as_fd(), 1).and_then(|entries| act(&entries)).map(Some).map_err(failed)
    }
}

impl Draining {
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, seen: HashMap::new(), closed: false }
    }

    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// From here on it opens no flow, and refuses none: VIPs first, so that none is refused for want of a Service.
    pub fn close(&mut self) -> Result<(), LayoutError> {
        for map in [MapName::Vips, MapName::Services] {
            self.layout.with(map, |entries| {
                entries.keys()?.iter().try_for_each(|key| entries.remove(key).map(drop))
            })?;
        }
        self.closed = true;
        Ok(())
    }

    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many flows it has left. Those that nothing has changed for `silence` are forgotten: no collector of theirs runs.
    pub fn flows(&mut self, silence: Duration) -> Result<usize, LayoutError> {
        let now = Instant::now();
        let mut seen = std::mem::take(&mut self.seen);
        let mut left = HashMap::new();
        self.layout.with(MapName::Flows, |entries| {
            for key in entries.keys()? {
                let Some(value) = entries.get(&key)? else { continue };
                let mut hasher = DefaultHasher::new();
                value.hash(&mut hasher);
                let hash = hasher.finish();
                let since =
                    seen.remove(&key).filter(|(before, _)| *before == hash).map_or(now, |(_, since)| since);
                if now.duration_since(since) > silence {
                    entries.remove(&key)?;
                } else {
                    left.insert(key, (hash, since));
                }
            }
            Ok(())
        })?;
        self.seen = left;
        Ok(self.seen.len())
    }
}
