//! What the daemon lets others read: JSON files in its run directory.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, BufReader, BufWriter, Write as _},
    path::Path,
};

/// The content of a file; the default if it was never written.
pub(super) fn read<T: DeserializeOwned + Default>(run_dir: &Path, name: &str) -> io::Result<T> {
    match fs::File::open(run_dir.join(name)) {
        Ok(file) => Ok(serde_json::from_reader(BufReader::new(file))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error),
    }
}

/// Exchanges the content; a reader sees the old one or the new one.
pub(super) fn write<T: Serialize>(run_dir: &Path, name: &str, content: &T) -> io::Result<()> {
    fs::create_dir_all(run_dir)?;
    let partial = run_dir.join(format!("{name}.partial"));
    let mut file = BufWriter::new(fs::File::create(&partial)?);
    serde_json::to_writer(&mut file, content)?;
    file.flush()?;
    fs::rename(partial, run_dir.join(name))
}
