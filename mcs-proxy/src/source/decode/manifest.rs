use super::{node, report::shown, service, service_import, settings, slice};
use crate::{
    model::{NamespacedName, ObjectKind, ObjectRef, Problem},
    source::Object,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a document of a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    Object(Object),
    /// One of ours, but not as Kubernetes types it.
    Unreadable {
        kind: ObjectKind,
        key: NamespacedName,
        problem: Problem,
    },
    /// No Kubernetes object, or one without a name; which makes it the file's problem. `field` is its path within
    /// the document.
    Nameless {
        field: String,
        message: String,
    },
}

/// The objects in a document: none, if it is of a kind that does not concern us; several, if it is a `List`.
/// `cluster_name` is this cluster's.
#[must_use]
pub fn manifests(document: Value, cluster_name: &str) -> Vec<Manifest> {
    let mut found = Vec::new();
    collect(document, "", None, cluster_name, &mut found);
    found
}

/// `path` leads to `document` from the top; `implied` is the kind of the items of a typed list, which lack their own.
fn collect(
    mut document: Value,
    path: &str,
    implied: Option<&str>,
    cluster_name: &str,
    found: &mut Vec<Manifest>,
) {
    if document.is_null() {
        return;
    }
    let nameless = |name: &str, message: String| {
        let field = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        Manifest::Nameless { field, message }
    };
    let Some(kind) = document.get("kind").and_then(Value::as_str).or(implied).map(str::to_owned) else {
        found.push(nameless("kind", "absent, so this is no Kubernetes object".into()));
        return;
    };
    if let Some(item_kind) = kind.strip_suffix("List") {
        match document.get_mut("items").map(Value::take) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                let implied = Some(item_kind).filter(|kind| !kind.is_empty());
                for (i, item) in items.into_iter().enumerate() {
                    let path =
                        if path.is_empty() { format!("items[{i}]") } else { format!("{path}.items[{i}]") };
                    collect(item, &path, implied, cluster_name, found);
                }
            }
            Some(_) => found.push(nameless("items", format!("no list, though the kind is {}", shown(&kind)))),
        }
        return;
    }

    // Others have kinds of these names, too; and an object of an older version would be passed over in silence.
    let version = document.get("apiVersion").and_then(Value::as_str);
    let (kind, valid_version) = match kind.as_str() {
        "Service" => (ObjectKind::Service, "v1"),
        "EndpointSlice" => (ObjectKind::EndpointSlice, "discovery.k8s.io/v1"),
        "ServiceImport" => (ObjectKind::ServiceImport, "multicluster.x-k8s.io/v1beta1"),
        "Node" => (ObjectKind::Node, "v1"),
        "ConfigMap" => (ObjectKind::ConfigMap, "v1"),
        _ => return,
    };
    let (group, valid_group) = (version.map(group), group(valid_version));
    if group.is_some_and(|group| group != valid_group) {
        return;
    }
    let metadata = document.get("metadata");
    let Some(name) = metadata.and_then(|metadata| metadata.get("name")).and_then(Value::as_str) else {
        found.push(nameless("metadata.name", format!("absent or no text, but a {kind} needs one")));
        return;
    };
    let namespace = metadata.and_then(|metadata| metadata.get("namespace")).and_then(Value::as_str);
    let namespace = if kind == ObjectKind::Node { "" } else { namespace.unwrap_or("default") };
    let key = NamespacedName::new(namespace, name);
    let older = (kind == ObjectKind::ServiceImport).then_some("multicluster.x-k8s.io/v1alpha1");
    if version.is_some_and(|version| version != valid_version && Some(version) != older) {
        let message = format!("`{}` is not read", shown(version.unwrap_or_default()));
        found.push(unreadable(kind, key, "apiVersion".into(), message, &format!("write {valid_version}")));
        return;
    }
    let decoded = match kind {
        ObjectKind::Service => typed(document).map(|object| Some(Object::Service(service(&object)))),
        ObjectKind::ServiceImport => {
            typed(document).map(|object| service_import(&object).map(Object::ServiceImport))
        }
        ObjectKind::Node => typed(document).map(|object| Some(Object::Node(node(&object)))),
        ObjectKind::ConfigMap => typed(document).map(|object| Some(Object::Settings(settings(&object)))),
        ObjectKind::EndpointSlice | ObjectKind::File => {
            typed(document).map(|object| slice(&object, cluster_name).map(Object::EndpointSlice))
        }
    };
    match decoded {
        Ok(Some(object)) => found.push(Manifest::Object(object)),
        Ok(None) => {}
        Err((field, message)) => found.push(unreadable(kind, key, field, message, "mend it")),
    }
}

fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// As Kubernetes types it, or the path of the field that is not, and why.
fn typed<T: DeserializeOwned>(document: Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let field = error.path().to_string();
        // Unquoted numbers and booleans where text is due are the commonest slip in YAML.
        let hint = if field.starts_with("metadata.annotations") || field.starts_with("metadata.labels") {
            " (put the value in quotes)"
        } else {
            ""
        };
        (field, format!("{}{hint}", shown(&error.inner().to_string())))
    })
}

fn unreadable(
    kind: ObjectKind,
    key: NamespacedName,
    field: String,
    message: String,
    way_out: &str,
) -> Manifest {
    let object = ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() };
    let remedy = format!("the object stays as it last was (at first: absent); {way_out}");
    Manifest::Unreadable { kind, key, problem: Problem { object, field, message, remedy } }
}
