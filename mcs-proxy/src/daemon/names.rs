//! What people are told of what the maps hold is written while nothing else is to be done.

use super::{Daemon, writer::Writer};
use crate::{
    dataplane::Dataplane,
    observe::{
        catalog::{Batch, CatalogFile, Put},
        inventory::Inventory,
        vitals::SharedVitals,
    },
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    task::{self, JoinHandle},
    time,
};
use tracing::{error, info};

/// How many Services' names are collected before the next event is looked at: some tenths of a millisecond.
const STEP: usize = 8;

/// How long after a failure the names are written again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Names {
    run_dir: PathBuf,
    vitals: SharedVitals,
    /// Not while `writing`.
    copies: Option<Copies>,
    /// A thread of its own, as a disk may hold up whoever writes. One at a time, so that the order stays.
    writing: Option<JoinHandle<Written>>,
    /// Why the names could not be written the last time, which is told once.
    failure: Option<String>,
    /// After a failure, the file is not written to before.
    rests_until: Option<time::Instant>,
}

/// `None`: not to the file.
pub(super) type Written = (Copies, Option<io::Result<Put>>);

/// What the command line reads from the file, and what answers those who ask the daemon itself.
#[derive(Debug)]
pub(super) struct Copies {
    file: CatalogFile,
    inventory: Arc<RwLock<Inventory>>,
    /// One that is being made to take its place.
    fresh: Option<Inventory>,
}

impl Copies {
    fn new(run_dir: &Path) -> Self {
        Self { file: CatalogFile::new(run_dir), inventory: Arc::default(), fresh: None }
    }

    fn remember(&mut self, batch: &Batch, vitals: &SharedVitals) {
        if batch.starts {
            self.fresh = Some(Inventory::default());
        }
        let Some(fresh) = &mut self.fresh else {
            self.inventory.write().unwrap_or_else(PoisonError::into_inner).follow(batch);
            return;
        };
        fresh.follow(batch);
        if batch.completes
            && let Some(fresh) = self.fresh.take()
        {
            *self.inventory.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            vitals.note(|facts| facts.inventory = Some(Arc::clone(&self.inventory)));
        }
    }
}

impl Names {
    pub(super) fn new(run_dir: &Path, vitals: SharedVitals) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            vitals,
            copies: Some(Copies::new(run_dir)),
            writing: None,
            failure: None,
            rests_until: None,
        }
    }

    /// For the loop to wait for.
    pub(super) const fn writing(&mut self) -> &mut Option<JoinHandle<Written>> {
        &mut self.writing
    }

    /// Why they could not be written the last time.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// When to try again.
    pub(super) const fn retry_at(&self) -> Option<time::Instant> {
        self.rests_until
    }

    pub(super) fn retry<D: Dataplane>(&mut self, writer: &mut Writer<D>) {
        self.rests_until = None;
        writer.tell_names_anew();
    }

    /// Whether [`Self::proceed`] has anything to do.
    pub(super) fn are_due<D: Dataplane>(&self, writer: &Writer<D>) -> bool {
        self.writing.is_none() && writer.owes_names()
    }

    pub(super) fn proceed<D: Dataplane>(&mut self, writer: &mut Writer<D>) {
        if let Some(batch) = writer.names(STEP) {
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Batch) {
        let mut copies = self.copies.take().unwrap_or_else(|| Copies::new(&self.run_dir));
        let (vitals, rests) = (self.vitals.clone(), self.rests_until.is_some());
        self.writing = Some(task::spawn_blocking(move || {
            copies.remember(&batch, &vitals);
            let put = (!rests).then(|| copies.file.put(&batch));
            (copies, put)
        }));
    }

    pub(super) fn written<D: Dataplane>(&mut self, (copies, put): Written, writer: &mut Writer<D>) {
        self.writing = None;
        self.copies = Some(copies);
        let Some(put) = put else { return };
        match put {
            Ok(Put::Done) => {
                if self.failure.take().is_some() {
                    info!("{}: written again", self.run_dir.display());
                }
            }
            Ok(Put::Lost) => writer.tell_names_anew(),
            Err(failure) => {
                let why = failure.to_string();
                if self.failure.as_ref() != Some(&why) {
                    error!(
                        "{}: {why}; until it can be written, `mcs-proxy services` lacks names or shows old ones",
                        self.run_dir.display()
                    );
                }
                self.failure = Some(why);
                self.rests_until = Some(time::Instant::now() + RETRY_DELAY);
            }
        }
    }
}

impl Daemon {
    /// The names may have caught up with the maps.
    pub(super) fn note_names(&self) {
        if self.names.writing.is_none() && !self.writer.owes_names() {
            self.vitals.note(|facts| facts.named = facts.commits);
        }
    }

    /// Writes what is still owed.
    pub(super) async fn finish_names(&mut self) {
        let Self { names, writer, .. } = self;
        loop {
            if let Some(writing) = names.writing.take()
                && let Ok(written) = writing.await
            {
                names.written(written, writer);
            } else if names.are_due(writer) {
                names.proceed(writer);
            } else {
                break;
            }
        }
    }
}
