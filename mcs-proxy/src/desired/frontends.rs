use super::{
    EndpointVerdict, Flags, Frontend, FrontendKey,
    eligibility::{Candidate, judge},
    maglev,
    opt_in::{is_ours, reference, unserved},
    slots::{put_in_order, slots},
};
use crate::model::{
    EndpointSlice, ObjectKind, ObjectRef, Problem, Service, ServicePort, SessionAffinity, SourceCluster,
    rejection,
};
use mcs_proxy_ebpf::abi::{Algorithm, Protocol};
use std::{collections::BTreeMap, net::IpAddr};

/// The frontends of one Service, whose slices these are (in the order of their names), and what is wrong: a frontend
/// for every port on every ClusterIP; none, if the Service is not ours. Where ports of one Service collide, the first
/// one has it.
#[must_use]
pub fn frontends_of<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    flags: &Flags,
) -> (Vec<(FrontendKey, Frontend)>, Vec<Problem>) {
    let ours = is_ours(service, flags.all_services);
    let mut problems = unserved(service, ours);
    if !ours {
        return (Vec::new(), problems);
    }
    let mut frontends = BTreeMap::new();
    let mut rejected = Rejected::default();
    for (i, port) in service.ports.iter().enumerate() {
        if port.protocol == Protocol::Sctp {
            problems.push(unserved_sctp(service, i));
            continue;
        }
        for &vip in &service.cluster_ips {
            let key = FrontendKey { vip, port: port.port, protocol: port.protocol };
            if frontends.contains_key(&key) {
                problems.push(repeated_port(service, i, key));
                continue;
            }
            let frontend = frontend(service, port, vip, slices.clone(), flags, &mut rejected);
            frontends.insert(key, frontend);
        }
    }
    if !frontends.is_empty() {
        problems.extend(rejected.problems());
        problems.extend(slices.filter_map(|slice| import_from_ourselves(slice, flags)));
    }
    problems.sort();
    problems.dedup();
    (frontends.into_iter().collect(), problems)
}

fn frontend<'a>(
    service: &Service,
    port: &ServicePort,
    vip: IpAddr,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    flags: &Flags,
    rejected: &mut Rejected<'a>,
) -> Frontend {
    let mut candidates = judge(port, vip, slices);
    put_in_order(&mut candidates);
    rejected.note(&candidates);
    let mut serving: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.keeps_flows())
        .map(|candidate| candidate.address)
        .collect();
    serving.sort_unstable();
    serving.dedup();
    let algorithm = service.algorithm.unwrap_or(flags.default_algorithm);
    let slots = slots(&candidates);
    Frontend {
        service: service.key.clone(),
        port_name: port.name.clone(),
        algorithm,
        affinity_seconds: match service.session_affinity {
            SessionAffinity::None => 0,
            SessionAffinity::ClientIp { timeout_seconds } => timeout_seconds,
        },
        slots: match algorithm {
            Algorithm::Maglev => maglev::table(&slots),
            Algorithm::RoundRobin | Algorithm::Random => slots,
        },
        serving,
        endpoints: candidates.iter().map(Candidate::judged).collect(),
    }
}

/// Endpoints whose addresses no pod can have, by slice: how many, and the first of them.
#[derive(Default)]
struct Rejected<'a>(BTreeMap<&'a str, (&'a EndpointSlice, std::collections::BTreeSet<IpAddr>)>);

impl<'a> Rejected<'a> {
    fn note(&mut self, candidates: &[Candidate<'a>]) {
        for candidate in candidates {
            if candidate.verdict == EndpointVerdict::Rejected {
                let (_, addresses) =
                    self.0.entry(&candidate.slice.key.name).or_insert((candidate.slice, Default::default()));
                addresses.insert(candidate.address.ip());
            }
        }
    }

    fn problems(&self) -> impl Iterator<Item = Problem> {
        self.0.values().filter_map(|(slice, addresses)| {
            let first = addresses.first()?;
            let reason = rejection(*first).unwrap_or("without a port");
            let others = match addresses.len() - 1 {
                0 => String::new(),
                n => format!(", and {n} more like it"),
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
    (slice.source == SourceCluster::Remote(flags.cluster_name.clone())).then(|| Problem {
        object: slice_reference(slice),
        field: "metadata".into(),
        message: format!(
            "its importer says that it comes from {0}, and --cluster-name is {0}",
            flags.cluster_name
        ),
        remedy: "it is used as a remote one; see whether --cluster-name is this cluster's".into(),
    })
}

fn unserved_sctp(service: &Service, port: usize) -> Problem {
    Problem {
        object: reference(service),
        field: format!("spec.ports[{port}].protocol"),
        message: "SCTP is not served yet by this version".into(),
        remedy: if service.kube_proxy_beneath {
            "kube-proxy serves this port, we serve the others".into()
        } else {
            "nobody serves this port, as the label service.kubernetes.io/service-proxy-name keeps kube-proxy from \
             it; use the annotation mcs-proxy.io/enabled: \"true\" instead"
                .into()
        },
    }
}

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
