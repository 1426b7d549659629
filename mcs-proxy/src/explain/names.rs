use super::{ExplainedEndpoint, ExplainedFrontend, Explanation, Query, Target};
use crate::observe::catalog::{Catalog, CatalogEndpoint, CatalogFrontend};
use std::net::SocketAddr;

/// What can be said while no daemon answers: which frontends the last one named, and its verdicts.
/// The slots are for [`compare`](super::compare) to take from the maps.
///
/// # Errors
/// Nothing of that name or address is known.
pub fn from_names(names: &Catalog, query: &Query) -> Result<Explanation, String> {
    let of_query = |frontend: &&CatalogFrontend| match &query.target {
        Target::Service { namespace, name } => frontend.namespace == *namespace && frontend.name == *name,
        Target::Frontend { address, protocol } => {
            SocketAddr::new(frontend.vip, frontend.port) == *address && frontend.protocol == *protocol
        }
    };
    let frontends: Vec<&CatalogFrontend> = names.frontends.iter().filter(of_query).collect();
    let Some(first) = frontends.first() else {
        return Err(format!("{} is not among what the last daemon named", query.target));
    };
    Ok(Explanation {
        cluster: names.cluster.clone(),
        node: None,
        told_by: "names".into(),
        namespace: first.namespace.clone(),
        name: first.name.clone(),
        served: true,
        because: "the last daemon entered it; forwarding goes on without one".into(),
        problems: Vec::new(),
        frontends: frontends.into_iter().map(frontend).collect(),
        strays: Vec::new(),
    })
}

fn frontend(named: &CatalogFrontend) -> ExplainedFrontend {
    ExplainedFrontend {
        vip: named.vip,
        port: named.port,
        protocol: named.protocol.clone(),
        port_name: named.port_name.clone(),
        algorithm: String::new(),
        affinity_seconds: 0,
        packets_only: false,
        active_tier: named.active_tier.and_then(|tier| u32::try_from(tier).ok()),
        lost_to: None,
        endpoints: named.endpoints.iter().map(endpoint).collect(),
        flow: None,
        maps: None,
    }
}

fn endpoint(named: &CatalogEndpoint) -> ExplainedEndpoint {
    ExplainedEndpoint {
        address: named.address,
        port: named.port,
        slice: named.slice.clone(),
        age_seconds: None,
        importer: None,
        cluster: named.cluster.clone(),
        node: None,
        zone: None,
        conditions: None,
        tier: named.tier.and_then(|tier| u32::try_from(tier).ok()),
        slots: 0,
        share: 0.0,
        verdict: named.verdict.clone(),
        reason: "as the last daemon decided".into(),
    }
}
