use notify::{
    EventKind, INotifyWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::warn;

/// A change is read once nothing has happened for so long, and no file that was written to is still open: a file that
/// is written in two goes is then whole.
const QUIET: Duration = Duration::from_millis(100);
/// … but no later than this after the first sign of it. A file may be held open for good.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tells that something in a directory changed. What, the reader finds out by reading it all: a mounted ConfigMap
/// changes by the swap of one hidden symbolic link (`..data`), which no event ties to the files that lead there.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    watcher: INotifyWatcher,
    signs: Arc<Signs>,
}

#[derive(Debug, Default)]
struct Signs {
    changed: Notify,
    /// Files that were written to and not closed since.
    being_written: Mutex<BTreeSet<PathBuf>>,
    /// The directory itself was removed, replaced or made anew: its watch is void.
    moved: AtomicBool,
}

impl Watch {
    pub(super) fn new(directory: &Path) -> notify::Result<Self> {
        let directory = std::path::absolute(directory)?;
        let signs = Arc::new(Signs::default());
        let (path, notes) = (directory.clone(), Arc::clone(&signs));
        let watcher = INotifyWatcher::new(
            move |event: notify::Result<notify::Event>| notes.take(&path, event),
            notify::Config::default(),
        )?;
        let mut watch = Self { directory, watcher, signs };
        watch.watcher.watch(&watch.directory, RecursiveMode::NonRecursive)?;
        // Only the parent tells when a directory that went away comes back. Not vital: it may be unreadable for us.
        if let Some(parent) = watch.directory.parent()
            && let Err(error) = watch.watcher.watch(parent, RecursiveMode::NonRecursive)
        {
            warn!("{}: if it is replaced as a whole, that goes unseen: {error}", watch.directory.display());
        }
        Ok(watch)
    }

    /// Returns once something has changed and calm has returned.
    pub(super) async fn changed(&mut self) {
        self.signs.changed.notified().await;
        let latest = Instant::now() + PATIENCE;
        loop {
            let writing = !self.signs.writers().is_empty();
            let calm = if writing { latest } else { latest.min(Instant::now() + QUIET) };
            if timeout_at(calm, self.signs.changed.notified()).await.is_err() || Instant::now() >= latest {
                break;
            }
        }
        self.signs.writers().clear();
        if self.signs.moved.swap(false, Ordering::AcqRel) {
            // Before the reading, so that nothing is missed. Fails while the directory is away: then its parent tells.
            let _ = self.watcher.unwatch(&self.directory);
            let _ = self.watcher.watch(&self.directory, RecursiveMode::NonRecursive);
        }
    }
}

impl Signs {
    fn take(&self, directory: &Path, event: notify::Result<notify::Event>) {
        match event {
            Ok(event) => {
                // Our own reading opens and closes files.
                let reading = matches!(event.kind, EventKind::Access(kind)
                    if kind != AccessKind::Close(AccessMode::Write));
                let ours = |path: &PathBuf| path.starts_with(directory);
                if reading || !(event.need_rescan() || event.paths.iter().any(ours)) {
                    return;
                }
                if event.paths.iter().any(|path| path == directory) {
                    self.moved.store(true, Ordering::Release);
                }
                self.note_writers(event);
            }
            Err(error) => warn!("{}: the watch failed once: {error}; reading it anew", directory.display()),
        }
        self.changed.notify_one();
    }

    fn note_writers(&self, event: notify::Event) {
        let mut writers = self.writers();
        if let EventKind::Modify(ModifyKind::Data(_)) = event.kind {
            writers.extend(event.paths.into_iter().filter(|path| super::manifest_name(path).is_some()));
        } else {
            // Closed, removed or renamed.
            event.paths.iter().for_each(|path| {
                writers.remove(path);
            });
        }
    }

    fn writers(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.being_written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
