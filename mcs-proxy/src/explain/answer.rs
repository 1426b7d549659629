use super::{
    Client, Conditions, ExplainedEndpoint, ExplainedFlow, ExplainedFrontend, Explanation, Query, Target,
};
use crate::{
    desired::{EndpointVerdict, Frontend, FrontendKey, Judged, JudgedEndpoint, Resolver, is_ours},
    model::{
        Endpoint, EndpointSlice, Mode, Model, NamespacedName, ObjectKind, OptIn, Problem, Service,
        SourceCluster, algorithm_name,
    },
    observe::catalog::{protocol_name, protocol_of},
};
use mcs_proxy_ebpf::{
    abi::{Address, Algorithm, Port},
    select::flow_hash,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// What the daemon, or whoever read the manifests, knows.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub model: &'a Model,
    pub resolver: &'a Resolver,
    /// `daemon` or `manifests`.
    pub told_by: &'a str,
    /// Seconds since the epoch.
    pub now: i64,
}

/// Explains what is asked, without the maps.
///
/// # Errors
/// Nothing of that name or address is known; says what to look at.
pub fn answer(known: Known<'_>, query: &Query) -> Result<Explanation, String> {
    let (service, only) = find(known, &query.target)?;
    let all_services = known.resolver.flags().all_services;
    let is_ours = is_ours(service, all_services);
    let is_active = known.model.mode() == Mode::Active;
    let served = is_ours && is_active;
    let judged: BTreeMap<FrontendKey, Judged> =
        known.resolver.judged(known.model, &service.key).into_iter().collect();
    let frontends = known
        .resolver
        .claims_of(&service.key)
        .filter(|key| only.is_none_or(|only| only == **key))
        .map(|key| frontend(known, service, *key, judged.get(key), query.client.as_ref()))
        .collect();
    Ok(Explanation {
        cluster: known.resolver.flags().cluster_name.clone(),
        node: known.model.node().map(|node| node.name().to_owned()),
        told_by: known.told_by.to_owned(),
        namespace: service.key.namespace.to_string(),
        name: service.key.name.to_string(),
        served,
        because: if is_ours && !is_active {
            "the settings' `mode`, or `mcs-proxy mode` on this node, lets us begin no new flows; those there are go on".to_owned()
        } else {
            because(service, served).to_owned()
        },
        problems: problems(known, service),
        frontends,
        strays: Vec::new(),
    })
}

fn find<'a>(known: Known<'a>, target: &Target) -> Result<(&'a Service, Option<FrontendKey>), String> {
    let absent = |key: &NamespacedName| {
        format!("no Service {key} is known here; see `kubectl get service -n {} {}`", key.namespace, key.name)
    };
    match target {
        Target::Service { namespace, name } => {
            let key = NamespacedName::new(&**namespace, &**name);
            known.model.service(&key).map(|service| (service, None)).ok_or_else(|| absent(&key))
        }
        Target::Frontend { address, protocol } => {
            let number = protocol_of(protocol).ok_or_else(|| format!("`{protocol}` is no protocol"))?;
            let key = FrontendKey { vip: address.ip(), port: address.port(), protocol: number };
            if let Some(frontend) = known.resolver.desired().get(&key) {
                let service = known.model.service(&frontend.service);
                return service.map(|service| (service, Some(key))).ok_or_else(|| absent(&frontend.service));
            }
            Err(unserved(known.model, address, protocol))
        }
    }
}

/// Why there is no frontend at an address.
fn unserved(model: &Model, address: &SocketAddr, protocol: &str) -> String {
    let mut owners = model.services().filter(|service| service.cluster_ips.contains(&address.ip()));
    match owners.next() {
        Some(owner) => format!(
            "{protocol} {address} is none of ours: the address is Service {0}'s, see `mcs-proxy explain {0}`",
            owner.key
        ),
        None => {
            format!("{protocol} {address} is none of ours: no Service that is known here has this address")
        }
    }
}

fn because(service: &Service, served: bool) -> &'static str {
    match service.opt_in {
        OptIn::Annotation => "the annotation mcs-proxy.io/enabled: \"true\" opts it in",
        OptIn::ProxyName if served => {
            "the label service.kubernetes.io/service-proxy-name: mcs-proxy opts it in, and keeps kube-proxy from it"
        }
        OptIn::ProxyName => {
            "the API server's own Service needs the annotation mcs-proxy.io/enabled: \"true\""
        }
        OptIn::Unsaid if served => "--all-services takes every Service that has a ClusterIP",
        OptIn::Unsaid => "nothing opts it in; annotate it with mcs-proxy.io/enabled: \"true\"",
        OptIn::Refused => "the annotation mcs-proxy.io/enabled: \"false\" opts it out",
        OptIn::OtherProxy => "its label service.kubernetes.io/service-proxy-name names another proxy",
    }
}

/// Of the Service and of its slices.
fn problems(known: Known<'_>, service: &Service) -> Vec<String> {
    let concerns = |problem: &&Problem| {
        let object = &problem.object;
        object.namespace == service.key.namespace
            && match object.kind {
                ObjectKind::EndpointSlice => {
                    known.model.slices_of(&service.key).any(|slice| slice.key.name == object.name)
                }
                ObjectKind::Service | ObjectKind::ServiceImport => *object == service.object_ref(),
                ObjectKind::Node | ObjectKind::ConfigMap | ObjectKind::File => false,
            }
    };
    known.model.problems().chain(known.resolver.problems()).filter(concerns).map(Problem::to_string).collect()
}

fn frontend(
    known: Known<'_>,
    service: &Service,
    key: FrontendKey,
    judged: Option<&Judged>,
    client: Option<&Client>,
) -> ExplainedFrontend {
    let mut explained = ExplainedFrontend {
        vip: key.vip,
        port: key.port,
        protocol: protocol_name(key.protocol).to_owned(),
        port_name: String::new(),
        algorithm: String::new(),
        affinity_seconds: 0,
        packets_only: false,
        active_tier: None,
        lost_to: None,
        endpoints: Vec::new(),
        flow: None,
        maps: None,
    };
    let Some(frontend) = known.resolver.desired().get(&key) else { return explained };
    if frontend.service != service.key {
        explained.lost_to = Some(frontend.service.to_string());
        return explained;
    }
    let mut slots: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for slot in frontend.slots.iter() {
        *slots.entry(*slot).or_default() += 1;
    }
    explained.port_name = frontend.port_name.to_string();
    algorithm_name(frontend.algorithm).clone_into(&mut explained.algorithm);
    explained.affinity_seconds = frontend.affinity_seconds;
    explained.packets_only = frontend.packets_only;
    let Some(judged) = judged else { return explained };
    explained.active_tier = judged.active_tier.map(counted);
    explained.endpoints = judged
        .endpoints
        .iter()
        .map(|judged| {
            let slots = if judged.verdict.takes_flows() { slots.get(&judged.address) } else { None };
            endpoint(known, service, judged, slots.copied().unwrap_or_default(), frontend.slots.len())
        })
        .collect();
    explained.endpoints.sort_by_key(|endpoint| endpoint.slots == 0);
    explained.flow = client.map(|client| flow(key, frontend, client));
    explained
}

fn endpoint(
    known: Known<'_>,
    service: &Service,
    judged: &JudgedEndpoint,
    slots: u32,
    all_slots: usize,
) -> ExplainedEndpoint {
    let slice = known.model.slices_of(&service.key).find(|slice| slice.key.name == judged.slice);
    let listed = slice.and_then(|slice| listed(slice, judged.address.ip()));
    let own = &known.resolver.flags().cluster_name;
    let cluster = match &judged.source {
        SourceCluster::Local => own.clone(),
        remote @ (SourceCluster::Remote(_) | SourceCluster::Unknown) => remote.to_string(),
    };
    ExplainedEndpoint {
        address: judged.address.ip(),
        port: judged.address.port(),
        slice: judged.slice.to_string(),
        age_seconds: slice
            .and_then(|slice| slice.changed)
            .and_then(|changed| u64::try_from(known.now - changed).ok()),
        importer: slice.map(|slice| slice.importer.to_string()),
        node: listed.and_then(|endpoint| endpoint.node_name()).map(str::to_owned),
        zone: listed.and_then(|endpoint| endpoint.zone()).map(str::to_owned),
        conditions: listed.map(|&Endpoint { ready, serving, terminating, .. }| Conditions {
            ready,
            serving,
            terminating,
        }),
        tier: judged.tier.map(counted),
        slots,
        share: if slots == 0 { 0.0 } else { f64::from(slots) / all_slots as f64 },
        verdict: judged.verdict.as_str().to_owned(),
        reason: if judged.verdict.takes_flows() && known.resolver.is_out(judged) {
            "takes new flows though its cluster does not answer, as nothing else could".into()
        } else {
            reason(judged.verdict, &cluster, &known.resolver.flags().node_name)
        },
        cluster,
    }
}

/// People count from 1.
fn counted(tier: usize) -> u32 {
    u32::try_from(tier + 1).unwrap_or(u32::MAX)
}

fn listed(slice: &EndpointSlice, address: IpAddr) -> Option<&Endpoint> {
    slice.endpoints.iter().find(|endpoint| endpoint.address == address)
}

fn reason(verdict: EndpointVerdict, cluster: &str, node: &str) -> String {
    match verdict {
        EndpointVerdict::Used => "takes new flows".into(),
        EndpointVerdict::UsedTerminating => {
            "takes new flows, as no endpoint is ready and this one still serves while it terminates".into()
        }
        EndpointVerdict::NotReady => "its condition `ready` is false".into(),
        EndpointVerdict::Terminating => {
            "it terminates, and others are ready; its open flows may finish".into()
        }
        EndpointVerdict::Duplicate => {
            "another slice lists the same address and port, and that one counts".into()
        }
        EndpointVerdict::Rejected(refusal) => format!("its address is {refusal}"),
        EndpointVerdict::InNoTier => format!("mcs-proxy.io/clusters names neither {cluster} nor `others`"),
        EndpointVerdict::ClusterDrained => {
            "the settings drain its cluster (`state: drain`): no new flows, those it has go on".into()
        }
        EndpointVerdict::ClusterUnanswered => {
            "new flows to its cluster stay without an answer (`on-failure: drain`); one is tried from time to time".into()
        }
        EndpointVerdict::Unanswered => {
            "new flows to it stay without an answer (`--eject-unanswered`); one is tried from time to time".into()
        }
        EndpointVerdict::ClusterDropped => "the settings drop its cluster (`state: drop`)".into(),
        EndpointVerdict::OtherTier => "another tier of mcs-proxy.io/clusters takes the new flows".into(),
        EndpointVerdict::OtherNode if node.is_empty() => {
            "internalTrafficPolicy or hints keep to endpoints of this node".into()
        }
        EndpointVerdict::OtherNode => {
            format!("internalTrafficPolicy or hints keep to endpoints of this node, {node}")
        }
        EndpointVerdict::NodeUnnamed => {
            "internalTrafficPolicy keeps to endpoints of this node, and no --node-name says which that is".into()
        }
        EndpointVerdict::OtherZone => "hints give this zone other endpoints".into(),
        EndpointVerdict::LocalFirst => {
            "hints give this node endpoints of this cluster, which come first".into()
        }
        EndpointVerdict::ShareTooSmall => {
            "its cluster's share of the turn has fewer slots than the cluster has endpoints".into()
        }
    }
}

fn flow(key: FrontendKey, frontend: &Frontend, client: &Client) -> ExplainedFlow {
    let count = frontend.used;
    let new = match (frontend.algorithm, client.port) {
        _ if frontend.slots.is_empty() => "is refused at once: no endpoint takes new flows".to_owned(),
        (Algorithm::RoundRobin, _) => format!("goes to whose turn it is, of {count}"),
        (Algorithm::Random, _) => format!("goes to one of {count} by chance"),
        (Algorithm::Maglev, None) => "follows from the client's port; give it as --client IP:PORT".to_owned(),
        (Algorithm::Maglev, Some(port)) => {
            let hash = flow_hash(
                &Address::from(client.ip),
                Port::new(port),
                &Address::from(key.vip),
                Port::new(key.port),
                key.protocol.number(),
            );
            let slot = frontend.slots[hash as usize % frontend.slots.len()];
            format!("goes to {slot}, by the hash of its addresses and ports")
        }
    };
    let affinity = match frontend.affinity_seconds {
        0 => String::new(),
        seconds => format!("; but to where this client's last one went, if that is within {seconds} s"),
    };
    ExplainedFlow {
        client: client.to_string(),
        next: format!("a new flow {new}{affinity}"),
        open: Vec::new(),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
