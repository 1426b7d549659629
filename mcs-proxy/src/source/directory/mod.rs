//! `--source directory=PATH`: manifests as files, watched for changes.
//!
//! Read are `*.yaml`, `*.yml` and `*.json`, not in subdirectories and not hidden; several documents a file, `List`s
//! too; other kinds are passed over. A file that cannot be parsed keeps its last good content; so does an object that
//! is not of its type, within a file that is otherwise good.

mod content;
mod documents;
mod watch;

use super::{Event, EventSender, Scope};
use crate::model::ObjectKind;
use content::{Content, Files};
use std::{
    io,
    path::{Path, PathBuf},
};
use watch::Watch;

/// A file larger than this is not read: 64 MiB, some fifty thousand slices.
const LARGEST_FILE: u64 = 64 << 20;

/// Why the source cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("--source directory={}: {source}; create the directory or name another", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "--source directory={}: cannot watch it: {source}; if it is a limit, raise the sysctls \
         fs.inotify.max_user_instances and fs.inotify.max_user_watches", path.display()
    )]
    Unwatchable { path: PathBuf, source: notify::Error },
}

/// Sends the kinds that are in `scope` as complete lists, then every change, until the receiver is dropped.
///
/// # Errors
/// The directory cannot be read or watched at the start. Later it may go away and come back: its content stays.
pub async fn run(path: &Path, scope: &Scope, events: EventSender) -> Result<(), DirectoryError> {
    // Watch first, then read: what changes in between is read twice rather than never.
    check(path).await?;
    let mut watch =
        Watch::new(path).map_err(|source| DirectoryError::Unwatchable { path: path.to_owned(), source })?;
    let files = scan(path.to_owned()).await.map_err(|source| unreadable(path, source))?;
    let mut content = Content::new(scope);
    let mut news = content.start(files);
    loop {
        if events.send_all(news).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            () = watch.changed() => {}
            () = events.closed() => return Ok(()),
        }
        news = match scan(path.to_owned()).await {
            Ok(files) => {
                events.reach().answered(ObjectKind::File);
                content.update(files)
            }
            Err(error) => {
                events.reach().failed(ObjectKind::File, format!("{}: {error}", path.display()));
                content.unreadable(&path.display().to_string(), &error)
            }
        };
    }
}

/// What [`run`] would tell first, without a watch.
///
/// # Errors
/// The directory cannot be read.
pub fn read(path: &Path, scope: &Scope) -> Result<Vec<Event>, DirectoryError> {
    let files = read_files(path).map_err(|source| unreadable(path, source))?;
    Ok(Content::new(scope).start(files))
}

/// Says whether the directory can be read, more clearly than a watch does.
///
/// # Errors
/// It cannot.
pub async fn check(path: &Path) -> Result<(), DirectoryError> {
    tokio::fs::read_dir(path).await.map(drop).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Unreadable { path: path.to_owned(), source }
}

async fn scan(directory: PathBuf) -> io::Result<Files> {
    tokio::task::spawn_blocking(move || read_files(&directory)).await.map_err(io::Error::other)?
}

fn read_files(directory: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(name) = manifest_name(&path) else { continue };
        match read_file(&path) {
            Ok(Some(bytes)) => {
                files.insert(name.to_owned(), Ok(bytes));
            }
            // A directory.
            Ok(None) => {}
            // Gone since it was listed, which the watch tells of next; not so a link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
            Err(error) => {
                files.insert(name.to_owned(), Err(error));
            }
        }
    }
    Ok(files)
}

/// The file's name, if it is one that is read: not `..data` and the like of a mounted ConfigMap, nor what editors leave
/// behind.
fn manifest_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let extension = path.extension()?.to_str()?;
    (!name.starts_with('.') && matches!(extension, "yaml" | "yml" | "json")).then_some(name)
}

/// Follows symbolic links, of which a mounted ConfigMap consists. `None` for what is no file: a pipe would block.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    if metadata.len() > LARGEST_FILE {
        return Err(io::Error::other(format!(
            "{} bytes are more than the {LARGEST_FILE} that are read; split it",
            metadata.len()
        )));
    }
    std::fs::read(path).map(Some)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
