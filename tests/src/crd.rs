//! The CustomResourceDefinition of ServiceImports, which no API server has by itself.

use serde_json::{Value, json};

/// Where it is created.
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Its name.
pub const SERVICE_IMPORTS: &str = "serviceimports.multicluster.x-k8s.io";
/// Its group.
pub const GROUP: &str = "multicluster.x-k8s.io";

/// It, with v1alpha1 and v1beta1, of which these are served.
#[must_use]
pub fn service_imports(served: &[&str]) -> Value {
    let version = |name: &str| {
        json!({
            "name": name, "served": served.contains(&name), "storage": name == "v1beta1",
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": SERVICE_IMPORTS,
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": "serviceimports", "singular": "serviceimport", "kind": "ServiceImport"},
            "versions": [version("v1alpha1"), version("v1beta1")],
        },
    })
}
