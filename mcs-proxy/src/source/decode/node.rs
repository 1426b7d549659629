use super::report::{Report, shown};
use crate::model::{NamespacedName, Node, ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1 as api;
use std::net::IpAddr;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Decodes a Node; what makes no sense is left out and told of in its `problems`.
#[must_use]
pub fn node(object: &api::Node) -> Node {
    let metadata = &object.metadata;
    let key = NamespacedName::new("", metadata.name.as_deref().unwrap_or_default());
    let mut report =
        Report::new(ObjectRef { kind: ObjectKind::Node, namespace: "".into(), name: key.name.clone() });
    let zone = metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty());
    let listed = object.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let mut addresses = Vec::with_capacity(listed.len());
    for (i, listed) in listed.iter().enumerate() {
        if !matches!(listed.type_.as_str(), "InternalIP" | "ExternalIP") {
            continue;
        }
        match listed.address.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => report.add(
                format!("status.addresses[{i}].address"),
                format!("`{}` is no IP address", shown(&listed.address)),
                "it is not known as this node's; see to what writes the Node",
            ),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    Node { key, zone: zone.cloned(), addresses, problems: report.finish() }
}
