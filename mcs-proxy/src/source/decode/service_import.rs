use super::service::decode;
use crate::model::{NamespacedName, ObjectKind, ServiceImport, import_key};
use k8s_openapi::{api::core::v1 as api, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;
use serde_json::Value;

/// KEP-1645: the Service that an implementation made of the import.
const DERIVED: &str = "multicluster.kubernetes.io/derived-service";
/// AWS Cloud Map: a JSON list of `{"cluster": …, "derived-service": …}`.
const CLOUD_MAP_DERIVED: &str = "multicluster.k8s.aws/derived-service";

/// A ServiceImport of `multicluster.x-k8s.io`, v1alpha1 or v1beta1, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServiceImportObject {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    ips: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<api::SessionAffinityConfig>,
    internal_traffic_policy: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: i32,
}

/// Decodes a ServiceImport; what makes no sense is left out and told of in its `problems`. `None` for headless ones.
#[must_use]
pub fn service_import(object: &ServiceImportObject) -> Option<ServiceImport> {
    let spec = object.spec.clone().unwrap_or_default();
    if spec.r#type.as_deref() == Some("Headless") {
        return None;
    }
    let key = NamespacedName::new(
        object.metadata.namespace.as_deref().unwrap_or("default"),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let derived = derived(&object.metadata, &key, spec.ips.as_ref().is_none_or(Vec::is_empty));
    let mut service = decode(ObjectKind::ServiceImport, &as_service(object, spec));
    let mut problems = std::mem::take(&mut service.problems);
    for problem in &mut problems {
        problem.field = problem.field.replace("spec.clusterIPs[", "spec.ips[");
    }
    // Its addresses are no Service's, so kube-proxy does not know them.
    service.kube_proxy_beneath = false;
    service.key = import_key(&key);
    Some(ServiceImport { key, service, derived, problems })
}

/// What it would be as a Service.
fn as_service(object: &ServiceImportObject, spec: Spec) -> api::Service {
    let ports = spec.ports.into_iter().flatten().map(|Port { name, protocol, port }| api::ServicePort {
        name,
        protocol,
        port,
        ..Default::default()
    });
    // Labels that concern kube-proxy mean nothing here.
    let metadata = ObjectMeta { labels: None, ..object.metadata.clone() };
    api::Service {
        metadata,
        spec: Some(api::ServiceSpec {
            cluster_ips: spec.ips,
            ports: Some(ports.collect()),
            session_affinity: spec.session_affinity,
            session_affinity_config: spec.session_affinity_config,
            internal_traffic_policy: spec.internal_traffic_policy,
            ..Default::default()
        }),
        status: None,
    }
}

fn derived(metadata: &ObjectMeta, key: &NamespacedName, without_ips: bool) -> Vec<String> {
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
    let listed: Option<Value> =
        annotation(CLOUD_MAP_DERIVED).and_then(|text| serde_json::from_str(text).ok());
    let listed = listed.as_ref().and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|entry| entry.get("derived-service")?.as_str()).map(str::to_owned);
    // Karmada's older flow: neither addresses nor a word of the Service.
    let by_name = without_ips.then(|| format!("derived-{}", key.name));
    let mut derived: Vec<String> =
        annotation(DERIVED).into_iter().cloned().chain(listed).chain(by_name).collect();
    derived.retain(|name| !name.is_empty());
    derived.sort_unstable();
    derived.dedup();
    derived
}
