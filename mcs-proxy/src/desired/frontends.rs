use super::{
    Context, EndpointVerdict, Flags, Frontend, FrontendKey,
    eligibility::{Candidate, judge_readiness, leave_out_clusters, list},
    locality, maglev,
    opt_in::{is_ours, reference, switched_off, unserved},
    outages,
    slots::{put_in_order, slots},
    tiers::{self, Standing},
};
use crate::model::{
    EndpointSlice, MinReady, Mode, ObjectKind, ObjectRef, Problem, Refusal, Service, ServicePort,
    SessionAffinity, SourceCluster, Tier, Tiers, TrafficPolicy,
};
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
};

/// What was decided about one Service.
#[derive(Debug, Default)]
pub(super) struct Decision<'a> {
    pub(super) frontends: Vec<(FrontendKey, Decided<'a>)>,
    pub(super) problems: Vec<Problem>,
}

/// One frontend, with every endpoint that the slices list for it, in the order of display.
#[derive(Debug)]
pub(super) struct Decided<'a> {
    pub(super) frontend: Frontend,
    pub(super) candidates: Vec<Candidate<'a>>,
    /// Of a Service with tiers that go by its `clusters`.
    pub(super) standing: Option<Standing>,
}

/// Decides about one Service, whose slices these are (in the order of their names): a frontend for every port on every
/// ClusterIP; none, if the Service is not ours or we are switched off. Where ports of one Service collide, the first one has it.
pub(super) fn decide<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    context: &Context<'_>,
) -> Decision<'a> {
    let ours = is_ours(service, context.flags.all_services);
    let mut problems = unserved(service, ours);
    if !ours {
        return Decision { frontends: Vec::new(), problems };
    }
    if context.mode != Mode::Active {
        problems.extend(switched_off(service));
        return Decision { frontends: Vec::new(), problems };
    }
    let mut frontends = BTreeMap::new();
    let mut rejected = Rejected::default();
    for (i, port) in service.ports.iter().enumerate() {
        for &vip in &service.cluster_ips {
            let key = FrontendKey { vip, port: port.port, protocol: port.protocol };
            if frontends.contains_key(&key) {
                problems.push(repeated_port(service, i, key));
                continue;
            }
            let decided = decide_frontend(service, port, key, slices.clone(), context);
            rejected.note(&decided.candidates);
            frontends.insert(key, decided);
        }
    }
    if !frontends.is_empty() {
        problems.extend(rejected.problems());
        problems.extend(slices.filter_map(|slice| import_from_ourselves(slice, context.flags)));
        problems.extend(unnamed_node(service, context.flags));
        problems.extend(unknown_clusters(service, context));
    }
    problems.sort();
    problems.dedup();
    Decision { frontends: frontends.into_iter().collect(), problems }
}

/// The order of the rules: what is no endpoint; clusters that are switched off; what does not answer; what is out of
/// reach for this Service; readiness; tiers; hints.
fn decide_frontend<'a>(
    service: &Service,
    port: &ServicePort,
    key: FrontendKey,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    context: &Context<'_>,
) -> Decided<'a> {
    let refusal = |address, source: &SourceCluster| {
        context.surroundings.refusal(address, source, &context.flags.cluster_name)
    };
    let mut candidates = list(port, key.vip, slices, refusal, context.settings);
    leave_out_clusters(&mut candidates, context.settings, &context.flags.cluster_name);
    let all = (!context.outages.is_empty()).then(|| candidates.clone());
    let left_out = context.outages.leave_out(&mut candidates, context.settings, context.flags);
    let (mut standing, mut weighted) = choose(service, key, &mut candidates, context);
    // Without an alternative, what does not answer is better than nothing.
    if left_out
        && !candidates.iter().any(|candidate| candidate.verdict.takes_flows())
        && let Some(all) = all
    {
        candidates = all;
        (standing, weighted) = choose(service, key, &mut candidates, context);
    }
    put_in_order(&mut candidates);
    let slots = slots(&mut candidates, weighted);
    Decided { frontend: frontend(service, port, key, slots, &mut candidates, context), candidates, standing }
}

/// Who takes the new flows of those in question; with tiers, which one, and whether its clusters share by number.
fn choose<'a>(
    service: &'a Service,
    key: FrontendKey,
    candidates: &mut [Candidate<'_>],
    context: &Context<'_>,
) -> (Option<Standing>, Option<&'a Tier>) {
    let Context { settings, here, .. } = *context;
    match (service.internal_traffic_policy, &service.clusters) {
        (TrafficPolicy::Local, _) => {
            locality::keep_to_this_node(candidates, here);
            judge_readiness(candidates);
            (None, None)
        }
        (TrafficPolicy::Cluster, None) => {
            judge_readiness(candidates);
            locality::follow_hints(candidates, here, settings, true);
            (None, None)
        }
        (TrafficPolicy::Cluster, Some(clusters)) => {
            tiers::assign(candidates, clusters, &context.flags.cluster_name);
            judge_readiness(candidates);
            let min_ready = service.min_ready.unwrap_or(MinReady::DEFAULT);
            let previous = context.standings.get(&key);
            let hold = context.flags.tier_hold;
            let settled = tiers::settle(candidates, clusters, min_ready, previous, context.now, hold);
            tiers::apply(candidates, settled.active());
            locality::follow_hints(candidates, here, settings, false);
            let weighted = tiers::weighted(clusters, settled.active());
            (Some(settled), weighted)
        }
    }
}

fn frontend(
    service: &Service,
    port: &ServicePort,
    key: FrontendKey,
    slots: Vec<SocketAddr>,
    candidates: &mut [Candidate<'_>],
    context: &Context<'_>,
) -> Frontend {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.verdict.takes_flows()) {
        if candidate.slots == 0 {
            candidate.verdict = EndpointVerdict::ShareTooSmall;
        }
    }
    let mut serving: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.keeps_flows())
        .map(|candidate| candidate.address)
        .collect();
    serving.sort_unstable();
    serving.dedup();
    let algorithm = service.algorithm.unwrap_or(context.flags.default_algorithm);
    Frontend {
        service: service.key.clone(),
        port_name: port.name.clone(),
        algorithm,
        affinity_seconds: match service.session_affinity {
            SessionAffinity::None => 0,
            SessionAffinity::ClientIp { timeout_seconds } => timeout_seconds,
        },
        packets_only: service.socket_path == Some(false),
        owns_vip: !context.surroundings.is_shared(key.vip),
        probe: context.outages.probe(&key, candidates),
        dropped: candidates
            .iter()
            .filter(|candidate| candidate.verdict == EndpointVerdict::ClusterDropped)
            .map(|candidate| candidate.address)
            .collect(),
        used: candidates.iter().filter(|candidate| candidate.verdict.takes_flows()).count(),
        fingerprint: fingerprint(candidates),
        watched: match key.protocol {
            Protocol::Tcp => outages::watched(candidates, context.settings, context.flags),
            // Datagrams need no answer, and of SCTP nothing is known yet.
            Protocol::Udp | Protocol::Sctp => Vec::new(),
        },
        slots: match algorithm {
            Algorithm::Maglev => maglev::table(&slots).into(),
            Algorithm::RoundRobin | Algorithm::Random => slots.into(),
        },
        serving,
    }
}

/// Of what people are told about the endpoints.
fn fingerprint(candidates: &[Candidate<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for candidate in candidates {
        let Candidate { address, slice, endpoint: _, verdict, place, slots } = candidate;
        (address, &slice.key.name, &slice.source, verdict, place.map(|place| place.tier), slots)
            .hash(&mut hasher);
    }
    hasher.finish()
}

/// Endpoints that are refused, by slice: which, and why.
#[derive(Default)]
struct Rejected<'a>(BTreeMap<&'a str, (&'a EndpointSlice, BTreeMap<IpAddr, Refusal>)>);

impl<'a> Rejected<'a> {
    fn note(&mut self, candidates: &[Candidate<'a>]) {
        for candidate in candidates {
            if let EndpointVerdict::Rejected(refusal) = candidate.verdict {
                let slice = candidate.slice;
                let (_, known) = self.0.entry(&slice.key.name).or_insert((slice, BTreeMap::new()));
                known.insert(candidate.address.ip(), refusal);
            }
        }
    }

    fn problems(&self) -> impl Iterator<Item = Problem> {
        self.0.values().filter_map(|(slice, addresses)| {
            let (first, reason) = addresses.first_key_value()?;
            let others = match addresses.len() - 1 {
                0 => String::new(),
                n => format!(", and {n} more are refused"),
            };
            Some(Problem {
                object: slice_reference(slice),
                field: "endpoints[].addresses".into(),
                message: format!("{first} is {reason}{others}"),
                remedy: "such endpoints get no traffic, the others do; see to what writes the slice".into(),
            })
        })
    }
}

fn import_from_ourselves(slice: &EndpointSlice, flags: &Flags) -> Option<Problem> {
    (slice.source == SourceCluster::Remote(flags.cluster_name.as_str().into())).then(|| Problem {
        object: slice_reference(slice),
        field: "metadata".into(),
        message: format!(
            "its importer says that it comes from {0}, and --cluster-name is {0}",
            flags.cluster_name
        ),
        remedy: "it is used as a remote one; see whether --cluster-name is this cluster's".into(),
    })
}

/// `internalTrafficPolicy: Local` where nobody said which node this is.
fn unnamed_node(service: &Service, flags: &Flags) -> Option<Problem> {
    let is_local = service.internal_traffic_policy == TrafficPolicy::Local;
    (is_local && flags.node_name.is_empty()).then(|| Problem {
        object: reference(service),
        field: "spec.internalTrafficPolicy".into(),
        message: "`Local` keeps to the endpoints of this node, and no --node-name says which one it is"
            .into(),
        remedy: "no endpoint is used; name the node as its cluster does (--node-name, or NODE_NAME)".into(),
    })
}

/// Clusters that the tiers name and that nobody knows: a slip, or they are yet to come. It names those that are known, but as
/// what to do: what is wrong stays the same whoever comes and goes.
fn unknown_clusters(service: &Service, context: &Context<'_>) -> Vec<Problem> {
    let Context { flags, settings, clusters, .. } = context;
    let is_known =
        |name: &str| name == flags.cluster_name || clusters.has(name) || settings.clusters.contains_key(name);
    let names = service.clusters.iter().flat_map(Tiers::names);
    let unknown: Vec<&str> = names.filter(|name| !is_known(name)).collect();
    if unknown.is_empty() {
        return Vec::new();
    }
    let mut known: BTreeSet<&str> =
        clusters.names().chain(settings.clusters.keys().map(String::as_str)).collect();
    known.insert(&flags.cluster_name);
    let more = match known.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let known = known.into_iter().take(LISTED).collect::<Vec<_>>().join(", ");
    let problem = |name| Problem {
        object: reference(service),
        field: "metadata.annotations[mcs-proxy.io/clusters]".into(),
        message: format!("no cluster called `{name}` is known"),
        remedy: format!("it gets its new flows once there is one; known are {known}{more}"),
    };
    unknown.into_iter().map(problem).collect()
}

/// So many clusters' names are listed.
const LISTED: usize = 10;

fn repeated_port(service: &Service, port: usize, key: FrontendKey) -> Problem {
    Problem {
        object: reference(service),
        field: format!("spec.ports[{port}].port"),
        message: format!("{key} is there twice"),
        remedy: "the first one is used; remove the other".into(),
    }
}

fn slice_reference(slice: &EndpointSlice) -> ObjectRef {
    ObjectRef {
        kind: ObjectKind::EndpointSlice,
        namespace: slice.key.namespace.clone(),
        name: slice.key.name.clone(),
    }
}

#[cfg(test)]
#[path = "frontends_tests.rs"]
mod tests;
