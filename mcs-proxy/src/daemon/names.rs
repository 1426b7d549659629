//! What people are told of what the maps hold is written while nothing else is to be done.

use super::{Daemon, writer::Writer};
use crate::{
    dataplane::Dataplane,
    observe::catalog::{Batch, CatalogFile, Put},
};
use std::{
    io,
    path::{Path, PathBuf},
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
    /// Not while `writing`.
    file: Option<CatalogFile>,
    /// A thread of its own, as a disk may hold up whoever writes. One at a time, so that the order stays.
    writing: Option<JoinHandle<Written>>,
    /// Why the names could not be written the last time, which is told once.
    failure: Option<String>,
    /// Not before, after a failure.
    rests_until: Option<time::Instant>,
}

pub(super) type Written = (CatalogFile, io::Result<Put>);

impl Names {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            file: Some(CatalogFile::new(run_dir)),
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

    pub(super) const fn retry(&mut self) {
        self.rests_until = None;
    }

    /// Whether [`Self::proceed`] has anything to do.
    pub(super) fn are_due<D: Dataplane>(&self, writer: &Writer<D>) -> bool {
        self.writing.is_none() && self.rests_until.is_none() && writer.owes_names()
    }

    pub(super) fn proceed<D: Dataplane>(&mut self, writer: &mut Writer<D>) {
        if let Some(batch) = writer.names(STEP) {
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Batch) {
        let mut file = self.file.take().unwrap_or_else(|| CatalogFile::new(&self.run_dir));
        self.writing = Some(task::spawn_blocking(move || {
            let put = file.put(&batch);
            (file, put)
        }));
    }

    pub(super) fn written<D: Dataplane>(&mut self, (file, put): Written, writer: &mut Writer<D>) {
        self.writing = None;
        self.file = Some(file);
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
                writer.tell_names_anew();
                self.rests_until = Some(time::Instant::now() + RETRY_DELAY);
            }
        }
    }
}

impl Daemon {
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
