use super::report::{Report, shown};
use crate::model::{
    Malformed, MinReady, NamespacedName, ObjectKind, ObjectRef, OptIn, PreferenceError, Service, ServicePort,
    SessionAffinity, Tiers, TrafficPolicy, parse_algorithm, rejection,
};
use k8s_openapi::api::core::v1 as api;
use mcs_proxy_ebpf::abi::Protocol;
use std::{collections::BTreeMap, net::IpAddr};

/// `"true"` opts in, `"false"` opts out.
const ENABLED: &str = "mcs-proxy.io/enabled";
const ALGORITHM: &str = "mcs-proxy.io/algorithm";
/// Tiers of clusters, see [`Tiers`].
const CLUSTERS: &str = "mcs-proxy.io/clusters";
/// When a tier is good enough, see [`MinReady`].
const MIN_READY: &str = "mcs-proxy.io/min-ready";
/// `"false"`: sockets that call it are left to the packet path.
const SOCKET_PATH: &str = "mcs-proxy.io/socket-path";
const READ: [&str; 5] = [ENABLED, ALGORITHM, CLUSTERS, MIN_READY, SOCKET_PATH];
const OUR_PREFIX: &str = "mcs-proxy.io/";
/// Kubernetes' own: which proxy serves the Service, kube-proxy if it is absent.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const OUR_PROXY_NAME: &str = "mcs-proxy";
/// Kubernetes' own: to be treated as headless, whatever its address; the value does not matter. kube-proxy goes by the
/// copy on the Service's slices (see [`slice`](super::slice())), but imports have lost it.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// Kubernetes' default and bounds of `spec.sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;
const MOST_AFFINITY_SECONDS: u32 = 86_400;

/// Decodes a Service; what makes no sense is left out and told of in its `problems`.
#[must_use]
pub fn service(object: &api::Service) -> Service {
    decode(ObjectKind::Service, object)
}

/// As [`service`], of an object of another kind in the form of one.
pub(super) fn decode(kind: ObjectKind, object: &api::Service) -> Service {
    let metadata = &object.metadata;
    let key = NamespacedName::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut report =
        Report::new(ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() });
    let empty = BTreeMap::new();
    let annotations = metadata.annotations.as_ref().unwrap_or(&empty);
    let labels = metadata.labels.as_ref().unwrap_or(&empty);
    let proxy_name = labels.get(PROXY_NAME).map(String::as_str);
    let mut malformed = Malformed::default();
    let opt_in = opt_in(annotations, proxy_name, &mut malformed, &mut report);
    let algorithm =
        annotation(annotations, ALGORITHM, parse_algorithm, &mut malformed.algorithm, &mut report);
    let said = |text: &str, error: PreferenceError| format!("`{}`, {error}", shown(text));
    let tiers = |text: &str| Tiers::parse(text).map_err(|error| said(text, error));
    let clusters = annotation(annotations, CLUSTERS, tiers, &mut malformed.clusters, &mut report);
    let threshold = |text: &str| MinReady::parse(text).map_err(|error| said(text, error));
    let min_ready = annotation(annotations, MIN_READY, threshold, &mut malformed.min_ready, &mut report);
    let socket_path =
        annotation(annotations, SOCKET_PATH, yes_or_no, &mut malformed.socket_path, &mut report);
    report_foreign_annotations(annotations, &mut report);

    let unspecified = api::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&unspecified);
    let cluster_ips = if labels.contains_key(HEADLESS) { Vec::new() } else { cluster_ips(spec, &mut report) };
    Service {
        created: metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        opt_in,
        kube_proxy_beneath: proxy_name.is_none(),
        ports: ports(spec, !cluster_ips.is_empty(), &mut report),
        cluster_ips,
        algorithm,
        clusters,
        min_ready,
        socket_path,
        session_affinity: session_affinity(spec, &mut report),
        internal_traffic_policy: internal_traffic_policy(spec, &mut report),
        externally_exposed: externally_exposed(object, spec),
        malformed,
        key,
        problems: report.finish(),
    }
}

fn opt_in(
    annotations: &BTreeMap<String, String>,
    proxy_name: Option<&str>,
    malformed: &mut Malformed,
    report: &mut Report,
) -> OptIn {
    let said = match annotations.get(ENABLED).map(String::as_str) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        None => None,
        Some(other) => {
            report.add(
                field_of(ENABLED),
                format!("`{}` is neither \"true\" nor \"false\"", shown(other)),
                "the last good value stays (at first: none); write \"true\", \"false\" or remove it",
            );
            malformed.opt_in = true;
            None
        }
    };
    match (said, proxy_name) {
        (Some(false), _) => OptIn::Refused,
        (_, Some(other)) if other != OUR_PROXY_NAME => {
            // Whatever the annotation was meant to say, the Service is another's.
            malformed.opt_in = false;
            OptIn::OtherProxy
        }
        (Some(true), _) => OptIn::Annotation,
        (None, Some(_)) => OptIn::ProxyName,
        (None, None) => OptIn::Unsaid,
    }
}

/// `None` if it is absent, or malformed, which the report then says.
fn annotation<T, E: std::fmt::Display>(
    annotations: &BTreeMap<String, String>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, E>,
    malformed: &mut bool,
    report: &mut Report,
) -> Option<T> {
    let text = annotations.get(name)?;
    parse(text)
        .inspect_err(|error| {
            *malformed = true;
            let meanwhile = "the last good value stays (at first: the default)";
            report.add(field_of(name), error.to_string(), meanwhile);
        })
        .ok()
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("`{}` is neither \"true\" nor \"false\"", shown(other))),
    }
}

fn report_foreign_annotations(annotations: &BTreeMap<String, String>, report: &mut Report) {
    for key in annotations.keys().filter(|key| key.starts_with(OUR_PREFIX)) {
        if !READ.contains(&key.as_str()) {
            report.add(
                field_of(&shown(key)),
                "no such annotation",
                format!("it is ignored; those that are read are {}", READ.join(", ")),
            );
        }
    }
}

fn field_of(annotation: &str) -> String {
    format!("metadata.annotations[{annotation}]")
}

/// Empty for headless and ExternalName Services and for those that have not been given an address yet.
fn cluster_ips(spec: &api::ServiceSpec, report: &mut Report) -> Vec<IpAddr> {
    let first = spec.cluster_ip.as_deref().unwrap_or_default();
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    let headless = first == "None" || all.first().is_some_and(|ip| ip == "None");
    if headless || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let singular = (!first.is_empty()).then_some(("spec.clusterIP".to_owned(), first));
    let plural = all.iter().enumerate().map(|(i, ip)| (format!("spec.clusterIPs[{i}]"), ip.as_str()));
    let listed: Vec<_> = if all.is_empty() { singular.into_iter().collect() } else { plural.collect() };

    let mut ips = Vec::with_capacity(listed.len());
    for (field, text) in listed {
        let why_not = match text.parse::<IpAddr>() {
            Ok(ip) => match rejection(ip) {
                None if ips.contains(&ip) => continue,
                None => {
                    ips.push(ip);
                    continue;
                }
                Some(reason) => format!("`{ip}` is {reason}"),
            },
            Err(_) => format!("`{}` is no IP address", shown(text)),
        };
        report.add(field, why_not, "it is no frontend; use an address of the cluster's Service range");
    }
    ips
}

fn ports(spec: &api::ServiceSpec, has_vip: bool, report: &mut Report) -> Vec<ServicePort> {
    let listed = spec.ports.as_deref().unwrap_or_default();
    if listed.is_empty() && has_vip {
        report.add("spec.ports", "there are none", "nothing of it is served; give it at least one port");
    }
    let mut ports = Vec::with_capacity(listed.len());
    for (i, port) in listed.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let Some(number) = u16::try_from(port.port).ok().filter(|&number| number != 0) else {
            let message = format!("{} is not between 1 and 65535", port.port);
            report.add(field("port"), message, "this port is not served; the others are");
            continue;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let message = format!("`{}` is no protocol", shown(port.protocol.as_deref().unwrap_or_default()));
            report.add(field("protocol"), message, "this port is not served; use TCP or UDP");
            continue;
        };
        ports.push(ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol,
            port: number,
        });
    }
    ports
}

/// Absent and empty are TCP, as in Kubernetes.
pub(super) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn session_affinity(spec: &api::ServiceSpec, report: &mut Report) -> SessionAffinity {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => SessionAffinity::None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            let said =
                config.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(AFFINITY_SECONDS as i32);
            let timeout_seconds = match u32::try_from(said) {
                Ok(seconds @ 1..=MOST_AFFINITY_SECONDS) => seconds,
                Ok(_) | Err(_) => {
                    report.add(
                        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                        format!("{said} is not between 1 and {MOST_AFFINITY_SECONDS}"),
                        format!("{AFFINITY_SECONDS} is used"),
                    );
                    AFFINITY_SECONDS
                }
            };
            SessionAffinity::ClientIp { timeout_seconds }
        }
        Some(other) => {
            let message = format!("`{}` is neither None nor ClientIP", shown(other));
            report.add("spec.sessionAffinity", message, "it is served without affinity");
            SessionAffinity::None
        }
    }
}

fn internal_traffic_policy(spec: &api::ServiceSpec, report: &mut Report) -> TrafficPolicy {
    match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            let message = format!("`{}` is neither Cluster nor Local", shown(other));
            report.add("spec.internalTrafficPolicy", message, "Cluster is used");
            TrafficPolicy::Cluster
        }
    }
}

fn externally_exposed(object: &api::Service, spec: &api::ServiceSpec) -> bool {
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
        || spec.ports.iter().flatten().any(|port| port.node_port.is_some_and(|node_port| node_port != 0))
        || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty())
        || balancer.and_then(|balancer| balancer.ingress.as_ref()).is_some_and(|list| !list.is_empty())
}
