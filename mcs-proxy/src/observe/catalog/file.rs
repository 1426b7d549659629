use super::{Batch, FILE};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The catalog's file, as its writer has it.
#[derive(Debug)]
pub struct CatalogFile {
    run_dir: PathBuf,
    /// The one that is being made, or the one that is there.
    file: Option<File>,
    is_there: bool,
}

/// What became of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Done,
    /// Somebody took the file away.
    Lost,
}

impl CatalogFile {
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), file: None, is_there: false }
    }

    /// Appends. A file that is made anew takes the place of the old one when it is complete.
    ///
    /// # Errors
    /// The run directory cannot be made or written to; then a file is to be begun anew.
    pub fn put(&mut self, batch: &Batch) -> io::Result<Put> {
        let path = self.run_dir.join(FILE);
        let partial = self.run_dir.join(format!("{FILE}.partial"));
        if batch.starts {
            fs::create_dir_all(&self.run_dir)?;
            self.is_there = false;
            self.file = Some(File::create(&partial)?);
        } else if self.is_there && !self.is_still_there(&path) {
            self.file = None;
        }
        let Some(file) = &mut self.file else { return Ok(Put::Lost) };
        file.write_all(&batch.text)?;
        if batch.completes {
            fs::rename(partial, path)?;
            self.is_there = true;
        }
        Ok(Put::Done)
    }

    fn is_still_there(&self, path: &Path) -> bool {
        let own = self.file.as_ref().and_then(|file| file.metadata().ok());
        let found = fs::metadata(path).ok();
        own.zip(found).is_some_and(|(own, found)| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_taken_away_is_begun_anew() -> io::Result<()> {
        let run_dir = std::env::temp_dir().join(format!("mcs-proxy-catalog-{}", std::process::id()));
        let mut file = CatalogFile::new(&run_dir);
        let batch = |starts, completes, text: &str| Batch { starts, completes, text: text.into() };
        assert_eq!(file.put(&batch(false, false, "a\n"))?, Put::Lost);
        assert_eq!(file.put(&batch(true, false, "a\n"))?, Put::Done);
        assert!(!run_dir.join(FILE).exists());
        assert_eq!(file.put(&batch(false, true, "b\n"))?, Put::Done);
        assert_eq!(file.put(&batch(false, false, "c\n"))?, Put::Done);
        assert_eq!(fs::read_to_string(run_dir.join(FILE))?, "a\nb\nc\n");
        fs::remove_file(run_dir.join(FILE))?;
        fs::write(run_dir.join(FILE), "another's\n")?;
        assert_eq!(file.put(&batch(false, false, "d\n"))?, Put::Lost);
        fs::remove_dir_all(&run_dir)
    }
}
