//! `/metrics`, `/healthz`, `/readyz` and `/livez`, over HTTP.
//!
//! It never stands in the way of traffic: an address that is taken is warned of and tried again, no answer waits for the
//! task that writes the maps, and what reads maps does so on a thread of its own.

use super::scrape::Scraper;
use crate::{
    config::BindAddress,
    observe::vitals::{Probe, SharedVitals},
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task, time,
};
use tracing::{debug, info, warn};

/// How long after a failure the address is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// Connections at a time; whoever comes later waits to be heard.
const CONNECTIONS: usize = 16;
/// A client that does not finish its request in this time is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a connection lasts.
const LONGEST: Duration = Duration::from_secs(120);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers for as long as it is polled.
pub(super) async fn serve(address: BindAddress, vitals: SharedVitals, scraper: Arc<Scraper>) {
    let Some(address) = address.socket() else { return };
    let listener = listen(address).await;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (vitals, scraper) = (vitals.clone(), scraper.clone());
                task::spawn(async move {
                    converse(stream, vitals, scraper).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others need them more.
                debug!("http: {error}");
                time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Returns once the address is ours.
async fn listen(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "serving /metrics, /healthz, /readyz and /livez");
                return listener;
            }
            Err(error) if !std::mem::replace(&mut told, true) => warn!(
                "--metrics-bind-address {address}: {error}; no metrics and no probes until it is free (tried again every \
                 {} s); traffic is served all the same",
                RETRY_DELAY.as_secs()
            ),
            Err(error) => debug!("--metrics-bind-address {address}: {error}"),
        }
        time::sleep(RETRY_DELAY).await;
    }
}

async fn converse(stream: TcpStream, vitals: SharedVitals, scraper: Arc<Scraper>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (vitals, scraper) = (vitals.clone(), scraper.clone());
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &vitals, scraper).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), answer);
    match time::timeout(LONGEST, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client of http: {error}"),
        Err(_) => debug!("a client of http kept its connection for {LONGEST:?}"),
    }
}

async fn answer(
    method: &Method,
    path: &str,
    vitals: &SharedVitals,
    scraper: Arc<Scraper>,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".into());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/livez" => health(vitals, Probe::Live),
        "/readyz" => health(vitals, Probe::Ready),
        "/healthz" => health(vitals, Probe::Healthy),
        "/metrics" => metrics(scraper).await,
        _ => text(StatusCode::NOT_FOUND, "here are /metrics, /healthz, /readyz and /livez\n".into()),
    }
}

fn health(vitals: &SharedVitals, probe: Probe) -> Response<Full<Bytes>> {
    let health = vitals.health(probe);
    let status = if health.because.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&health) {
        Ok(body) => typed(status, "application/json", body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn metrics(scraper: Arc<Scraper>) -> Response<Full<Bytes>> {
    match task::spawn_blocking(move || scraper.scrape()).await {
        Ok(Ok(body)) => typed(StatusCode::OK, OPENMETRICS, body),
        Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
