//! `mcs-proxy explain`.

use super::{align::align, view::View};
use crate::{
    config::{Explain, Output, Places},
    daemon::socket::{self, AskError, Request, Response},
    explain::{
        Client, ExplainedEndpoint, ExplainedFrontend, Explanation, Held, HeldBackend, Offline, Query, Target,
        compare, from_names, offline,
    },
    model::Model,
    observe::catalog::Catalog,
};
use anyhow::{Context as _, bail};
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// What the command prints, and whether the maps are as they should be, as far as it looked.
///
/// # Errors
/// Nothing of that name is known; or neither a daemon nor pins can be asked; or the manifests cannot be read.
pub fn explain(places: &Places, asked: &Explain) -> anyhow::Result<String> {
    let query = asked.query();
    let explanations = match (&asked.manifests, &query) {
        (Some(folder), query) => from_manifests(folder, asked, query.as_ref())?,
        (None, Some(query)) => vec![from_node(places, query)?],
        (None, None) => {
            bail!("say what to explain: a Service (default/serve) or a VIP with its port (10.13.181.116:80)")
        }
    };
    Ok(match asked.output {
        Output::Table if explanations.is_empty() => {
            "Nothing of these manifests is served: no Service is opted in (annotate one with mcs-proxy.io/enabled: \
             \"true\"), or the settings' mode keeps them from being served, or a ServiceImport's address is in no range of \
             --serviceimport-cidrs.\n"
                .into()
        }
        Output::Table => explanations.iter().map(text).collect::<Vec<_>>().join("\n"),
        Output::Json => serde_json::to_string_pretty(&explanations).context("cannot write JSON")? + "\n",
        Output::Yaml => serde_saphyr::to_string(&explanations).context("cannot write YAML")?,
    })
}

fn from_manifests(folder: &Path, asked: &Explain, query: Option<&Query>) -> anyhow::Result<Vec<Explanation>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let model = Model::default().with_import_ranges(asked.serviceimport_cidrs.clone());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let Offline { explanations, others } =
        offline(folder, asked.flags(), &asked.scope(), model, query, asked.client, now)?;
    // Beside what was asked for, which scripts may read.
    for problem in others {
        eprintln!("mcs-proxy: problem: {problem}");
    }
    explanations.map_err(anyhow::Error::msg)
}

fn from_node(places: &Places, query: &Query) -> anyhow::Result<Explanation> {
    let run_dir = places.run_dir();
    // Before anything else: with no pins there is nothing to explain, whatever names are left.
    let view = View::read(places)?;
    let mut explanation = match socket::ask(&run_dir, &Request::Explain(query.clone())) {
        Ok(Response::Explained(explanation)) => *explanation,
        Ok(Response::Error(error)) => bail!("{error}"),
        Ok(other @ (Response::Mode(_) | Response::Drained(_) | Response::Status(_))) => {
            bail!("the daemon is of another version: {other:?}")
        }
        Err(denied @ AskError::Denied { .. }) => return Err(denied.into()),
        Err(absent @ AskError::NoAnswer { .. }) => {
            eprintln!(
                "mcs-proxy: {absent}; this is what the maps hold, with the names that the last one left"
            );
            from_names(&Catalog::read(&run_dir).unwrap_or_default(), query).map_err(anyhow::Error::msg)?
        }
    };
    let whole = matches!(query.target, Target::Service { .. });
    let vips: Vec<IpAddr> = explanation.frontends.iter().map(|frontend| frontend.vip).collect();
    compare(&mut explanation, &held(&view), if whole { &vips } else { &[] });
    if let Some(client) = &query.client {
        explanation.frontends.iter_mut().for_each(|frontend| note_flows(frontend, client, &view));
    }
    Ok(explanation)
}

fn held(view: &View) -> Vec<Held> {
    let backend =
        |backend: &super::view::Backend| HeldBackend { address: backend.address, slots: backend.slots };
    view.frontends
        .iter()
        .map(|frontend| Held {
            key: frontend.key,
            algorithm: frontend.algorithm.to_owned(),
            packets_only: frontend.packets_only,
            backends: frontend.backends.iter().map(backend).collect(),
        })
        .collect()
}

/// The client's flows to this frontend that the maps hold.
fn note_flows(frontend: &mut ExplainedFrontend, client: &Client, view: &View) {
    let vip = SocketAddr::new(frontend.vip, frontend.port);
    let Some(flow) = &mut frontend.flow else { return };
    flow.open = view
        .flows
        .iter()
        .filter(|one| one.vip == vip && one.protocol == frontend.protocol)
        .filter(|one| {
            one.client.ip() == client.ip && client.port.is_none_or(|port| port == one.client.port())
        })
        .map(|one| {
            format!("{}: {} with {}, silent for {} s", one.client, one.state, one.backend, one.idle_seconds)
        })
        .collect();
}

fn text(explanation: &Explanation) -> String {
    let Explanation { cluster, node, namespace, name, served, because, .. } = explanation;
    let verb = if *served { "is served" } else { "is not served" };
    let place = match node {
        Some(node) => format!("cluster {cluster}, node {node}"),
        None => format!("cluster {cluster}"),
    };
    let mut text = format!("Service {namespace}/{name} {verb}: {because} ({place})\n");
    for frontend in &explanation.frontends {
        text.push_str(&frontend_text(frontend));
    }
    if explanation.frontends.is_empty() {
        text.push_str("  It has no frontend: no ClusterIP or no port that is ours to serve.\n");
    }
    for stray in &explanation.strays {
        let _ = writeln!(text, "  The maps also hold {stray}, which should not be there.");
    }
    for problem in &explanation.problems {
        let _ = writeln!(text, "  Problem: {problem}");
    }
    text
}

fn frontend_text(frontend: &ExplainedFrontend) -> String {
    let address = SocketAddr::new(frontend.vip, frontend.port);
    let mut text = format!("\n{} {address}  {}", frontend.protocol, frontend.algorithm);
    if frontend.affinity_seconds > 0 {
        let _ = write!(text, "  ClientIP affinity for {} s", frontend.affinity_seconds);
    }
    if frontend.packets_only {
        text.push_str("  sockets left to the packet path");
    }
    if let Some(tier) = frontend.active_tier {
        let _ = write!(text, "  tier {tier} takes the new flows");
    }
    text.push('\n');
    if let Some(other) = &frontend.lost_to {
        let _ = writeln!(
            text,
            "  Service {other} has this address and port: it comes first, by age, then by name."
        );
        return text;
    }
    if frontend.endpoints.is_empty() {
        text.push_str("  No slice lists an endpoint for it: new flows are refused at once.\n");
    } else {
        let title = [
            "",
            "Endpoint",
            "Cluster",
            "Zone",
            "Slice",
            "Age",
            "Importer",
            "Conditions",
            "Tier",
            "Share",
            "Verdict",
        ];
        let mut rows = vec![title.map(str::to_owned).to_vec()];
        rows.extend(frontend.endpoints.iter().map(row));
        text.push_str(&align(&rows));
    }
    if let Some(flow) = &frontend.flow {
        let _ = writeln!(text, "  Client {}: {}", flow.client, flow.next);
        for open in &flow.open {
            let _ = writeln!(text, "    open: {open}");
        }
    }
    if let Some(maps) = &frontend.maps {
        let _ = writeln!(text, "  {}: {}", if maps.agree { "Agreed" } else { "DRIFT" }, maps.says);
    }
    text
}

fn row(endpoint: &ExplainedEndpoint) -> Vec<String> {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let conditions = endpoint.conditions.map_or_else(
        || "-".to_owned(),
        |conditions| {
            let words = [
                (conditions.ready, "ready"),
                (!conditions.ready && conditions.serving, "serving"),
                (!conditions.ready && !conditions.serving, "not ready"),
                (conditions.terminating, "terminating"),
            ];
            words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect::<Vec<_>>().join("+")
        },
    );
    vec![
        String::new(),
        SocketAddr::new(endpoint.address, endpoint.port).to_string(),
        endpoint.cluster.clone(),
        dash(&endpoint.zone),
        endpoint.slice.clone(),
        endpoint.age_seconds.map_or_else(|| "-".into(), age),
        dash(&endpoint.importer),
        conditions,
        endpoint.tier.map_or_else(|| "-".into(), |tier| tier.to_string()),
        format!("{:.1} %", endpoint.share * 100.0),
        format!("{}: {}", endpoint.verdict, endpoint.reason),
    ]
}

/// As kubectl shows ages.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
