use super::{
    report::{Report, shown},
    service::{HEADLESS, protocol},
};
use crate::model::{
    Endpoint, EndpointSlice, Hints, NamespacedName, ObjectKind, ObjectRef, Origin, Place, SliceMetadata,
    SlicePort, SourceCluster, check_cluster_name, check_imported_name, is_passed_over, origin, own_name_told,
};
use k8s_openapi::api::discovery::v1 as api;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Of the EndpointSlice controller: when the Service or a pod changed.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// KEP-1645: the ServiceImport it belongs to.
const IMPORT_NAME: &str = "multicluster.kubernetes.io/service-name";

/// Decodes an EndpointSlice as kube-proxy reads it, nil defaults included; what makes no sense is left out and told
/// of in its `problems`. `cluster_name` is this cluster's.
///
/// `None` for what kube-proxy passes over as well: slices of FQDNs, those of headless Services (by
/// the label `service.kubernetes.io/headless`), and those that belong neither to a Service nor to a ServiceImport; and
/// for what an importer has not yet brought to its place.
#[must_use]
pub fn slice(object: &api::EndpointSlice, cluster_name: &str) -> Option<EndpointSlice> {
    let metadata = &object.metadata;
    let empty = BTreeMap::new();
    let labels = metadata.labels.as_ref().unwrap_or(&empty);
    let named = |label| labels.get(label).filter(|name: &&String| !name.is_empty());
    let (service, import) = (named(SERVICE_NAME), named(IMPORT_NAME));
    if object.address_type == "FQDN" || labels.contains_key(HEADLESS) || service.or(import).is_none() {
        return None;
    }
    let key = NamespacedName::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut report = Report::new(ObjectRef {
        kind: ObjectKind::EndpointSlice,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    });
    let annotations = metadata.annotations.as_ref().unwrap_or(&empty);
    let metadata = SliceMetadata { namespace: &key.namespace, name: &key.name, labels, annotations };
    if is_passed_over(&metadata) {
        return None;
    }
    let Origin { importer, source } = origin(&metadata, cluster_name);
    let source = with_a_fit_name(source, &mut report);
    let told = own_name_told(&metadata).filter(|name| check_cluster_name(name).is_ok());
    Some(EndpointSlice {
        service: service.map(|name| &**name).unwrap_or_default().into(),
        import: import.map(|name| name.as_str().into()),
        importer,
        source,
        misnamed: told.filter(|name| *name != cluster_name).map(Into::into),
        ports: ports(object, &mut report).into(),
        endpoints: endpoints(object, &mut report),
        changed: changed(object),
        key,
        problems: report.finish(),
    })
}

/// Annotations hold any text, and whoever may write a slice chooses it: what could be no cluster's name, or is a word of
/// `mcs-proxy.io/clusters`, names none. It would
/// stand in tables, logs and metrics, and in no list of the operator's.
fn with_a_fit_name(source: SourceCluster, report: &mut Report) -> SourceCluster {
    let SourceCluster::Remote(name) = &source else { return source };
    let Err(rule) = check_imported_name(name) else { return source };
    report.add(
        "metadata",
        format!("the importer names its cluster `{}`: {rule}", shown(name)),
        "its endpoints count as of an unknown cluster; see to what writes the slice",
    );
    SourceCluster::Unknown
}

/// The latest of what the API server and the controller have noted. Importers do not hand all of it on.
fn changed(object: &api::EndpointSlice) -> Option<i64> {
    let metadata = &object.metadata;
    let managed = metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    let created = metadata.creation_timestamp.as_ref();
    let noted = metadata.annotations.as_ref().and_then(|annotations| annotations.get(LAST_CHANGE));
    let noted = noted.and_then(|time| humantime::parse_rfc3339(time).ok());
    let noted = noted.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let seconds = managed.chain(created).map(|time| time.0.as_second());
    seconds.chain(noted.and_then(|age| i64::try_from(age.as_secs()).ok())).max()
}

fn ports(object: &api::EndpointSlice, report: &mut Report) -> Vec<SlicePort> {
    let listed = object.ports.as_deref().unwrap_or_default();
    let mut ports = Vec::with_capacity(listed.len());
    for (i, port) in listed.iter().enumerate() {
        // Nil means "all ports" to other readers of slices; kube-proxy skips it in silence.
        let Some(number) = port.port else { continue };
        let Some(number) = u16::try_from(number).ok().filter(|&number| number != 0) else {
            let message = format!("{number} is not between 1 and 65535");
            report.add(
                format!("ports[{i}].port"),
                message,
                "this port is left out; see to what writes the slice",
            );
            continue;
        };
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let message = format!("`{}` is no protocol", shown(port.protocol.as_deref().unwrap_or_default()));
            report.add(
                format!("ports[{i}].protocol"),
                message,
                "this port is left out; see to what writes the slice",
            );
            continue;
        };
        ports.push(SlicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol,
            port: number,
        });
    }
    ports
}

fn endpoints(object: &api::EndpointSlice, report: &mut Report) -> Vec<Endpoint> {
    let is_family: fn(&IpAddr) -> bool = match object.address_type.as_str() {
        "IPv4" => IpAddr::is_ipv4,
        "IPv6" => IpAddr::is_ipv6,
        other => {
            let message = format!("`{}` is none of IPv4, IPv6, FQDN", shown(other));
            report.add("addressType", message, "its endpoints are left out; see to what writes the slice");
            return Vec::new();
        }
    };
    let listed = object.endpoints.as_deref().unwrap_or_default();
    let mut endpoints = Vec::with_capacity(listed.len());
    for (i, endpoint) in listed.iter().enumerate() {
        let address = match endpoint.addresses.first().map(|text| (text, text.parse::<IpAddr>())) {
            Some((_, Ok(address))) if is_family(&address) => address,
            Some((text, _)) => {
                report.add(
                    format!("endpoints[{i}].addresses[0]"),
                    format!("`{}` is no {} address", shown(text), object.address_type),
                    "this endpoint is left out; see to what writes the slice",
                );
                continue;
            }
            None => {
                report.add(
                    format!("endpoints[{i}].addresses"),
                    "there are none",
                    "this endpoint is left out; see to what writes the slice",
                );
                continue;
            }
        };
        let conditions = endpoint.conditions.as_ref();
        endpoints.push(Endpoint {
            address,
            ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(true),
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(true),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
            place: place(endpoint),
        });
    }
    endpoints
}

fn place(endpoint: &api::Endpoint) -> Option<Arc<Place>> {
    let place = Place {
        node_name: endpoint.node_name.clone(),
        zone: endpoint.zone.clone(),
        hints: hints(endpoint.hints.as_ref()),
    };
    (place != Place::default()).then(|| Arc::new(place))
}

/// Empty lists are as good as none.
fn hints(object: Option<&api::EndpointHints>) -> Option<Hints> {
    let object = object?;
    let for_nodes: Vec<_> = object.for_nodes.iter().flatten().map(|node| node.name.clone()).collect();
    let for_zones: Vec<_> = object.for_zones.iter().flatten().map(|zone| zone.name.clone()).collect();
    (!for_nodes.is_empty() || !for_zones.is_empty()).then_some(Hints { for_nodes, for_zones })
}
