use super::report::{Report, shown};
use crate::model::{
    ClusterSettings, ClusterState, MODE_KEY, Mode, NamespacedName, ObjectKind, ObjectRef, OnFailure,
    Settings, SettingsObject, UNINSTALL_ANNOTATION, Uninstall, Zones, check_cluster_name,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Decodes the ConfigMap of [`Settings`], strictly: a value with anything in it that is not understood is malformed as
/// a whole, for half of an order may be worse than none.
#[must_use]
pub fn settings(object: &api::ConfigMap) -> SettingsObject {
    let metadata = &object.metadata;
    let key = NamespacedName::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut report = Report::new(ObjectRef {
        kind: ObjectKind::ConfigMap,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    });
    let mut settings = Settings::default();
    let mut malformed = BTreeSet::new();
    let empty = BTreeMap::new();
    for (name, text) in object.data.as_ref().unwrap_or(&empty) {
        let read = value_of(text).and_then(|value| {
            if name == MODE_KEY {
                settings.mode = mode(&value)?;
            } else {
                settings.clusters.insert(name.clone(), cluster(name, value)?);
            }
            Ok(())
        });
        if let Err(Flaw { field, message, way_out }) = read {
            report.add(
                format!("data[{}]{field}", shown(name)),
                message,
                format!("the last good value stays (at first: the default); {way_out}"),
            );
            malformed.insert(name.clone());
        }
    }
    let annotations = metadata.annotations.as_ref().unwrap_or(&empty);
    if let Some(text) = annotations.get(UNINSTALL_ANNOTATION) {
        match serde_json::from_str::<Uninstall>(text) {
            Ok(uninstall) => settings.uninstall = Some(uninstall),
            Err(error) => {
                report.add(
                    format!("metadata.annotations[{UNINSTALL_ANNOTATION}]"),
                    format!("`{}` is no order to leave: {error}", shown(text)),
                    "nothing is done for it; have it written by `mcs-proxy uninstall`",
                );
                malformed.insert(UNINSTALL_ANNOTATION.to_owned());
            }
        }
    }
    if object.binary_data.as_ref().is_some_and(|data| !data.is_empty()) {
        report.add("binaryData", "is not read", "put the values into `data`");
    }
    SettingsObject { key, settings, malformed, problems: report.finish() }
}

/// Why a value is not understood.
struct Flaw {
    /// Within the value: empty, or such as `.cidrs[0]`.
    field: String,
    message: String,
    way_out: String,
}

fn flaw<T>(field: &str, message: String, way_out: &str) -> Result<T, Flaw> {
    Err(Flaw { field: field.to_owned(), message, way_out: way_out.to_owned() })
}

fn value_of(text: &str) -> Result<Value, Flaw> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).or_else(|error| {
        let said = error.without_snippet().to_string();
        let first = said.lines().next().unwrap_or_default();
        flaw("", format!("no YAML: {}", shown(first)), "mend it")
    })
}

fn mode(value: &Value) -> Result<Mode, Flaw> {
    word(value, "", &[("active", Mode::Active), ("drain", Mode::Drain), ("bypass", Mode::Bypass)])
}

fn cluster(name: &str, value: Value) -> Result<ClusterSettings, Flaw> {
    const FIELDS: &str = "state, cidrs, on-failure, zones and max-endpoints";
    if let Err(why) = check_cluster_name(name) {
        return flaw(
            "",
            format!("this key is neither `{MODE_KEY}` nor a cluster's name: {why}"),
            "rename it",
        );
    }
    let Value::Object(fields) = value else {
        let way_out = "write such as {state: drain}";
        return flaw("", format!("`{}` is no mapping of fields", shown(&value.to_string())), way_out);
    };
    let mut cluster = ClusterSettings::default();
    for (field, value) in fields {
        let at = format!(".{field}");
        match field.as_str() {
            "state" => {
                let states = [
                    ("active", ClusterState::Active),
                    ("drain", ClusterState::Drain),
                    ("drop", ClusterState::Drop),
                ];
                cluster.state = word(&value, &at, &states)?;
            }
            "on-failure" => {
                cluster.on_failure =
                    word(&value, &at, &[("keep", OnFailure::Keep), ("drain", OnFailure::Drain)])?;
            }
            "zones" => {
                cluster.zones = word(&value, &at, &[("own", Zones::Own), ("shared", Zones::Shared)])?;
            }
            "cidrs" => cluster.cidrs = cidrs(&value, &at)?,
            "max-endpoints" => cluster.max_endpoints = Some(limit(&value, &at)?),
            other => {
                let way_out = format!("the fields are {FIELDS}");
                return flaw("", format!("`{}` is no field", shown(other)), &way_out);
            }
        }
    }
    Ok(cluster)
}

fn word<T: Copy>(value: &Value, field: &str, words: &[(&str, T)]) -> Result<T, Flaw> {
    let said = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    words.iter().find(|(word, _)| *word == said).map(|&(_, meaning)| meaning).map_or_else(
        || {
            let known: Vec<_> = words.iter().map(|&(word, _)| word).collect();
            let way_out = format!("write one of {}", known.join(", "));
            flaw(field, format!("`{}` is not understood", shown(&said)), &way_out)
        },
        Ok,
    )
}

fn cidrs(value: &Value, field: &str) -> Result<Vec<IpNet>, Flaw> {
    const WAY_OUT: &str = "write such as [10.10.0.0/16, fd00:10::/48]";
    let Value::Array(items) = value else {
        return flaw(field, format!("`{}` is no list", shown(&value.to_string())), WAY_OUT);
    };
    let mut cidrs = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let at = format!("{field}[{i}]");
        let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
        match text.parse::<IpNet>() {
            Ok(net) if net == net.trunc() => cidrs.push(net),
            Ok(net) => {
                let message = format!("`{net}` has bits beyond its prefix");
                return flaw(&at, message, &format!("write {}", net.trunc()));
            }
            Err(_) => return flaw(&at, format!("`{}` is no range of addresses", shown(&text)), WAY_OUT),
        }
    }
    cidrs.sort_unstable();
    cidrs.dedup();
    Ok(cidrs)
}

fn limit(value: &Value, field: &str) -> Result<u32, Flaw> {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).map_or_else(
        || {
            let message = format!("`{}` is no number from 0 to {}", shown(&value.to_string()), u32::MAX);
            flaw(field, message, "write such as 10000")
        },
        Ok,
    )
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
