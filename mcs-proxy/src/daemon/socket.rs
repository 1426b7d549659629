//! The daemon's Unix socket: one line of JSON asks, one line of JSON answers.
//!
//! It is in the run directory, for its owner alone. Requests go to the writer's task, which alone knows everything; one
//! that asks without end delays nothing, as the writer answers last of all it has to do.

use crate::{
    explain::{Explanation, Query},
    model::NodeMode,
    observe::{drained::Drained, mode::Modes, status::Status},
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task, time,
};
use tracing::{debug, warn};

/// In the run directory.
pub const FILE: &str = "mcs-proxy.sock";
/// Longer than any request.
const LONGEST: u64 = 4096;
/// A client that does not finish its line, or does not read, is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that may wait for the writer; whoever comes later waits to be heard.
const QUEUE: usize = 16;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Explain(Query),
    /// Orders a mode on this node, if one is named, and asks which one holds.
    Mode(Option<NodeMode>),
    /// What the mode keeps from new flows.
    Drained,
    /// How the daemon is. Answered beside the writer's task, which may hang.
    Status,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Explained(Box<Explanation>),
    Mode(Modes),
    Drained(Drained),
    Status(Box<Status>),
    Error(String),
}

/// A request on its way to the writer, and where the answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Response>);

/// Answers [`Request::Status`], on a thread of its own.
pub(super) type Onlooker = Arc<dyn Fn() -> Response + Send + Sync>;

/// Where the socket of this run directory is.
#[must_use]
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

/// Opens the socket; what a daemon that died has left is taken out of the way. The caller holds the run directory's
/// lock. Requests come out of the receiver for as long as it lives.
pub(super) fn serve(run_dir: &Path, onlooker: Onlooker) -> anyhow::Result<mpsc::Receiver<Asked>> {
    let path = path(run_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| path.display().to_string());
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .with_context(|| path.display().to_string())?;
    let (to_writer, requests) = mpsc::channel(QUEUE);
    task::spawn(accept(listener, to_writer, onlooker));
    Ok(requests)
}

/// As [`serve`]. Where there can be no socket, the daemon does all else.
pub(super) fn serve_or_warn(run_dir: &Path, onlooker: Onlooker) -> mpsc::Receiver<Asked> {
    serve(run_dir, onlooker).unwrap_or_else(|failure| {
        warn!("{failure:#}; `status`, `mode` and `explain` get no answer on this node until a restart with room there");
        // Nobody asks.
        mpsc::channel(1).1
    })
}

async fn accept(listener: UnixListener, to_writer: mpsc::Sender<Asked>, onlooker: Onlooker) {
    while !to_writer.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => {
                task::spawn(converse(stream, to_writer.clone(), onlooker.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: others need them more.
                debug!("the socket: {error}");
                time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, to_writer: mpsc::Sender<Asked>, onlooker: Onlooker) {
    match time::timeout(PATIENCE, converse_in_time(stream, to_writer, onlooker)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client of the socket: {error}"),
        Err(_) => debug!("a client of the socket took longer than {PATIENCE:?}"),
    }
}

async fn converse_in_time(
    mut stream: UnixStream,
    to_writer: mpsc::Sender<Asked>,
    onlooker: Onlooker,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line).await?;
    let response = match serde_json::from_str(&line) {
        Ok(Request::Status) => {
            let told = task::spawn_blocking(move || onlooker()).await;
            told.unwrap_or_else(|error| Response::Error(error.to_string()))
        }
        Ok(request @ (Request::Explain(_) | Request::Mode(_) | Request::Drained)) => {
            let (answer, answered) = oneshot::channel();
            let sent = to_writer.send((request, answer)).await;
            match sent {
                Ok(()) => answered.await.unwrap_or_else(|_| Response::Error("the daemon is ending".into())),
                Err(_) => Response::Error("the daemon is ending".into()),
            }
        }
        Err(error) => Response::Error(format!("no request that this version knows: {error}")),
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Whether a daemon runs is then not known.
    #[error("{path}: permission denied: run as root, as with sudo")]
    Denied { path: PathBuf },
    #[error("no daemon answers at {path}: {source}")]
    NoAnswer { path: PathBuf, source: io::Error },
}

impl AskError {
    /// Of something in the run directory.
    #[must_use]
    pub fn of(path: PathBuf, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied { path }
        } else {
            Self::NoAnswer { path, source }
        }
    }
}

/// Asks the daemon of a run directory.
///
/// # Errors
/// None answers, or we may not ask.
pub fn ask(run_dir: &Path, request: &Request) -> Result<Response, AskError> {
    let path = path(run_dir);
    exchange(&path, request).map_err(|source| AskError::of(path, source))
}

fn exchange(path: &Path, request: &Request) -> io::Result<Response> {
    use io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    io::BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
