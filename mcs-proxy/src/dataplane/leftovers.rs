//! Everything that daemons leave on a node, found and removed without any of them: pins of whatever layout, filters,
//! files.
//!
//! Only names are gone by, not the contract: what an older or a newer daemon has pinned goes as well.

use super::{
    audit::{Kind, kind},
    filters::{self, Filter, FiltersError},
    links::unpin,
    pins::PinDir,
    sockets::SocketHook,
    sys,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// One thing that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A pinned link: its program runs.
    Link(PathBuf),
    /// A filter on an interface: its program runs.
    Filter(Box<Filter>),
    /// Anything else that is pinned.
    Pin(PathBuf),
    File(PathBuf),
    /// Empty once what is before it in the list is gone.
    Directory(PathBuf),
    /// Beside what is ours, and somebody else's: stays.
    Foreign(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    #[error("{path}: {source}")]
    Path { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Filters(#[from] FiltersError),
    #[error(transparent)]
    Link(#[from] super::links::LinkError),
}

impl Leftover {
    /// One word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Link(_) => "link",
            Self::Filter(_) => "filter",
            Self::Pin(_) => "pin",
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
            Self::Foreign(_) => "foreign",
        }
    }

    /// Takes it away. What is gone already is no error; a directory that others use stays, and `false` says so.
    pub async fn remove(&self) -> Result<bool, LeftoverError> {
        let failed = |path: &Path, source| LeftoverError::Path { path: path.to_owned(), source };
        match self {
            Self::Link(path) => unpin(path)?,
            Self::Filter(filter) => filters::remove(filter).await?,
            Self::Pin(path) | Self::File(path) => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, error)),
                Ok(()) | Err(_) => {}
            },
            Self::Directory(path) => match fs::remove_dir(path) {
                // A mount point, or something else of somebody's in it.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY | libc::EROFS)) =>
                {
                    return Ok(false);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, error)),
                Ok(()) | Err(_) => {}
            },
            Self::Foreign(_) => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(filter) => write!(formatter, "{filter}"),
            Self::Link(path)
            | Self::Pin(path)
            | Self::File(path)
            | Self::Directory(path)
            | Self::Foreign(path) => {
                write!(formatter, "{}", path.display())
            }
        }
    }
}

/// All of it, in the order in which it is to go: programs that open flows before those that answer, directories after
/// what is in them. `files`: names in the run directory.
pub async fn find(pins: &PinDir, run_dir: &Path, files: &[String]) -> Result<Vec<Leftover>, LeftoverError> {
    let mut links = Vec::new();
    let mut rest = Vec::new();
    if sys::is_bpffs(pins.root()).unwrap_or(false) {
        pinned(pins.root(), &mut links, &mut rest)?;
    }
    links.sort_by_key(|path| (rank(path), path.clone()));
    let mut found: Vec<_> = links.into_iter().map(Leftover::Link).collect();
    found.extend(filters::find().await?.into_iter().map(|filter| Leftover::Filter(Box::new(filter))));
    found.extend(rest);
    let present = files.iter().map(|name| run_dir.join(name)).filter(|path| path.symlink_metadata().is_ok());
    found.extend(present.map(Leftover::File));
    if run_dir.is_dir() {
        found.push(Leftover::Directory(run_dir.to_owned()));
    }
    Ok(found)
}

/// Layouts, and what is not one; the root itself last.
fn pinned(root: &Path, links: &mut Vec<PathBuf>, rest: &mut Vec<Leftover>) -> Result<(), LeftoverError> {
    for path in entries(root)? {
        if layout(&path).is_some() && is_directory(&path) {
            walk(&path, links, rest)?;
        } else {
            rest.push(Leftover::Foreign(path));
        }
    }
    rest.push(Leftover::Directory(root.to_owned()));
    Ok(())
}

fn walk(directory: &Path, links: &mut Vec<PathBuf>, rest: &mut Vec<Leftover>) -> Result<(), LeftoverError> {
    for path in entries(directory)? {
        if is_directory(&path) {
            walk(&path, links, rest)?;
        } else if matches!(kind(&path), Ok(Kind::Link)) {
            links.push(path);
        } else {
            rest.push(Leftover::Pin(path));
        }
    }
    rest.push(Leftover::Directory(directory.to_owned()));
    Ok(())
}

/// Which version's layout a directory is of: `v3` → 3, and `v3-old` (see [`growth`](super::growth)) as well.
#[must_use]
pub fn layout(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix("-old").unwrap_or(name).strip_prefix('v')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, LeftoverError> {
    let failed = |source| LeftoverError::Path { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Symbolic links are not followed.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// The pinned links beneath a directory, in the order in which they are to go.
pub fn links_in(directory: &Path) -> Result<Vec<PathBuf>, LeftoverError> {
    let (mut links, mut rest) = (Vec::new(), Vec::new());
    walk(directory, &mut links, &mut rest)?;
    links.sort_by_key(|path| (rank(path), path.clone()));
    Ok(links)
}

/// Programs that ask before those that answer: nobody is to see a backend's address where it called a VIP.
fn rank(path: &Path) -> usize {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hook = SocketHook::ALL.iter().rev().position(|hook| hook.as_str() == name);
    match hook {
        Some(place) => 2 + place,
        None if name.ends_with("-from-pod") => 0,
        None => 1,
    }
}
