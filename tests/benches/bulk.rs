//! Many requests to an API server, several at a time.

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use mcs_proxy_tests::{Namespace, api::ApiServer};
use serde_json::Value;
use std::path::PathBuf;
use tokio::runtime::{Builder, Runtime};

/// Requests under way at a time.
const AT_ONCE: usize = 32;

/// Method, path, body; a PATCH is a merge patch.
pub(crate) type Request = (&'static str, String, Value);

pub(crate) struct Bulk {
    namespace: Namespace,
    kubeconfig: PathBuf,
}

impl Bulk {
    pub(crate) fn connect(namespace: &Namespace, api: &ApiServer) -> Self {
        Self { namespace: namespace.clone(), kubeconfig: api.kubeconfig() }
    }

    /// Sends all of them, in no certain order, and waits for the answers.
    pub(crate) fn send(&self, requests: Vec<Request>) -> Result<()> {
        let kubeconfig = self.kubeconfig.clone();
        self.namespace.run(move || {
            let runtime: Runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
                let config =
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                let client = Client::try_from(config)?;
                futures::stream::iter(requests)
                    .map(|(method, path, body)| request(client.clone(), method, path, body))
                    .buffer_unordered(AT_ONCE)
                    .try_for_each(|()| async { Ok(()) })
                    .await
            })
        })
    }
}

async fn request(client: Client, method: &str, path: String, body: Value) -> Result<()> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder()
        .method(method)
        .uri(&path)
        .header("Content-Type", kind)
        .body(serde_json::to_vec(&body)?)?;
    client.request::<Value>(request).await.map(drop).with_context(|| format!("{method} {path}"))
}
