//! Between a daemon and its API server, in their own language: ends watches early, forgets versions, and answers with what was
//! so before, or with half of it.

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use mcs_proxy_tests::Namespace;
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What becomes of lists of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lists {
    #[default]
    Pass,
    /// As they were answered last.
    Former,
    /// The connection breaks in the middle of it.
    Half,
}

/// A request for a list or a watch of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) is_watch: bool,
    pub(crate) resource: String,
    pub(crate) query: String,
    pub(crate) when: Instant,
}

/// Dropping it ends it, and every connection through it.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    _end: oneshot::Sender<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In place of what clients ask for.
    watch_seconds: Option<u32>,
    lists: Lists,
    /// Of which resource.
    listed: String,
    /// Whose next watch is refused, as its version is not known any more.
    forgotten: Option<String>,
    former: BTreeMap<String, Bytes>,
    asked: Vec<Asked>,
    /// The ends of open watches.
    watches: Vec<(String, oneshot::Sender<()>)>,
}

impl Relay {
    /// Listens in a namespace, and speaks to the API server there with the rights of a kubeconfig.
    pub(crate) fn start(namespace: &Namespace, listen: SocketAddr, kubeconfig: PathBuf) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let (own, namespace) = (Arc::clone(&shared), namespace.clone());
        thread::spawn(move || {
            namespace.run(move || -> Result<()> {
                let listener = TcpListener::bind(listen)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                ready.send(())?;
                runtime.block_on(async {
                    tokio::select! {
                        served = serve(listener, kubeconfig, own) => served,
                        _ = ended => Ok(()),
                    }
                })
            })
        });
        is_ready.recv().context("the relay does not start")?;
        Ok(Self { shared, _end: end })
    }

    /// How long every watch from now on lasts.
    pub(crate) fn end_watches_after(&self, seconds: u32) {
        self.shared.state().watch_seconds = Some(seconds);
    }

    /// From now on treats lists of this resource so, and no others.
    pub(crate) fn treat_lists(&self, resource: &str, lists: Lists) {
        let mut state = self.shared.state();
        (state.listed, state.lists) = (resource.to_owned(), lists);
    }

    /// Ends the watch of this resource, and refuses the next one: its version is gone.
    pub(crate) fn forget(&self, resource: &str) {
        let mut state = self.shared.state();
        state.forgotten = Some(resource.to_owned());
        state.watches.retain(|(watched, _)| watched != resource);
    }

    /// Watches, or lists but for those of one object: they are to learn at which version the API server is.
    pub(crate) fn asked(&self, is_watch: bool, resource: &str) -> Vec<Asked> {
        let state = self.shared.state();
        state
            .asked
            .iter()
            .filter(|one| {
                one.is_watch == is_watch
                    && one.resource == resource
                    && !one.query.split('&').any(|it| it == "limit=1")
            })
            .cloned()
            .collect()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, kubeconfig: PathBuf, shared: Arc<Shared>) -> Result<()> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        let answer = service_fn(move |request| carry(request, client.clone(), Arc::clone(&shared)));
        // A client that goes is none of ours to mourn.
        tokio::spawn(
            async move { http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await },
        );
    }
}

/// An error breaks the connection.
async fn carry(request: Request<Incoming>, client: Client, shared: Arc<Shared>) -> Result<Answer> {
    let (mut parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    let resource = path.rsplit('/').next().unwrap_or_default().to_owned();
    let is_watch = query.contains("watch=true");
    let is_list = parts.method == Method::GET && !is_watch;
    let mut watch_end = None;
    let (lists, former) = {
        let mut state = shared.state();
        let when = Instant::now();
        state.asked.push(Asked { is_watch, resource: resource.clone(), query: query.clone(), when });
        if is_watch && state.forgotten.take_if(|forgotten| *forgotten == resource).is_some() {
            return expired();
        }
        if is_watch {
            let (end, ended) = oneshot::channel();
            state.watches.push((resource.clone(), end));
            watch_end = Some(ended);
        }
        let query = match state.watch_seconds {
            Some(seconds) => query.replace("timeoutSeconds=290", &format!("timeoutSeconds={seconds}")),
            None => query,
        };
        parts.uri = PathAndQuery::try_from(format!("{path}?{query}"))?.into();
        let lists = if resource == state.listed { state.lists } else { Lists::Pass };
        (lists, state.former.get(&resource).cloned())
    };
    if let (true, Lists::Former, Some(former)) = (is_list, lists, former) {
        return Ok(Response::new(whole(former)));
    }
    for header in [AUTHORIZATION, ACCEPT_ENCODING, HOST] {
        parts.headers.remove(header);
    }
    let question = Body::from(body.collect().await?.to_bytes());
    let (mut parts, body) = client.send(Request::from_parts(parts, question)).await?.into_parts();
    if !is_list {
        parts.headers.remove(TRANSFER_ENCODING);
        let frames = body.into_data_stream().map(|data| data.map(Frame::data).map_err(io::Error::other));
        let frames = frames.take_until(async move {
            match watch_end {
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        });
        return Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()));
    }
    let bytes = body.collect_bytes().await?;
    if lists == Lists::Half {
        let half = bytes.slice(..bytes.len() / 2);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        let frames = stream::iter([Ok(Frame::data(half)), Err(io::Error::other("cut"))]);
        return Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()));
    }
    if parts.status.is_success() {
        shared.state().former.insert(resource, bytes.clone());
    }
    Ok(Response::from_parts(parts, whole(bytes)))
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// As some put it that stand before API servers; those themselves say so in the watch.
fn expired() -> Result<Answer> {
    let status = r#"{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
                     "message": "too old resource version", "reason": "Expired"}"#;
    Ok(Response::builder().status(StatusCode::GONE).body(whole(Bytes::from(status)))?)
}

/// The time between each two.
pub(crate) fn gaps(asked: &[Asked]) -> Vec<Duration> {
    asked.windows(2).map(|pair| pair[1].when - pair[0].when).collect()
}
