use super::*;
use crate::model::ObjectKind;

fn problem(kind: ObjectKind, field: &str, message: &str) -> Problem {
    Problem {
        object: ObjectRef { kind, namespace: "default".into(), name: "serve".into() },
        field: field.into(),
        message: message.into(),
        remedy: "mend it".into(),
    }
}

#[test]
fn the_reason_follows_from_kind_and_field() {
    use ObjectKind::{ConfigMap, EndpointSlice, Node, Service, ServiceImport};
    for (kind, field, reason) in [
        (Service, "metadata.annotations[mcs-proxy.io/clusters]", "InvalidAnnotation"),
        (ServiceImport, "metadata.annotations[mcs-proxy.io/enabled]", "InvalidAnnotation"),
        (Service, "metadata.labels[service.kubernetes.io/service-proxy-name]", "NotServed"),
        (Service, "spec.clusterIPs", "AddressConflict"),
        (Service, "spec.clusterIPs[0]", "NotServed"),
        (Service, "spec.ports[0].protocol", "NotServed"),
        (ServiceImport, "spec.ips[1]", "RefusedAddress"),
        (EndpointSlice, "endpoints[].addresses", "RejectedEndpoints"),
        (EndpointSlice, "endpoints[7].addresses[0]", "RejectedEndpoints"),
        (EndpointSlice, "(others)", "RejectedEndpoints"),
        (EndpointSlice, "endpoints", "TooManyEndpoints"),
        (EndpointSlice, "metadata", "ClusterNameConflict"),
        (EndpointSlice, "addressType", "InvalidField"),
        (ConfigMap, "data[member1].state", "InvalidSettings"),
        (Node, "status.addresses[0].address", "InvalidField"),
    ] {
        assert_eq!(Reason::of(&problem(kind, field, "x")).to_string(), reason, "{kind} {field}");
    }
}

#[test]
fn a_slices_endpoints_are_one_topic_and_each_slip_of_an_annotation_another() {
    let endpoint = |field: &str| Topic::of(&problem(ObjectKind::EndpointSlice, field, field));
    assert_eq!(endpoint("endpoints[3].addresses[0]"), endpoint("endpoints[].addresses"));
    let annotation = |message: &str| {
        Topic::of(&problem(ObjectKind::Service, "metadata.annotations[mcs-proxy.io/algorithm]", message))
    };
    assert_ne!(annotation("`rand`"), annotation("`randm`"));
}

#[test]
fn the_name_is_that_of_the_object_of_its_uid_and_of_the_hour_and_no_more() {
    let topic = Topic::of(&problem(ObjectKind::Service, "spec.clusterIP", "none"));
    let at = |seconds| topic.event_name("uid-1", Duration::from_secs(seconds));
    let start = 1_780_000_000;
    let renewal = topic.until_renewal("uid-1", Duration::from_secs(start)).as_secs();
    assert!((1..=3600).contains(&renewal));
    assert_eq!(at(start), at(start + renewal - 1));
    assert_ne!(at(start), at(start + renewal));
    assert_eq!(at(start + renewal), at(start + renewal + 3599));
    assert_ne!(at(start), topic.event_name("uid-2", Duration::from_secs(start)));
    // Nodes of several versions agree.
    assert_eq!(at(0), "serve.29f3426dd8143e33.0");

    let mut long = topic.clone();
    long.object.name = format!("{}.{}", "a".repeat(199), "b".repeat(53)).into();
    let name = long.event_name("uid-1", Duration::from_secs(start));
    assert!(name.len() <= 253 && name.starts_with("aaa") && !name.contains(".."), "{name}");
}

#[test]
fn a_note_has_what_fits_and_counts_the_rest() {
    let told = |count: usize, length: usize| {
        let problems: Vec<_> =
            (0..count).map(|i| problem(ObjectKind::Service, &format!("f{i}"), &"ü".repeat(length))).collect();
        note(problems.iter())
    };
    assert_eq!(told(2, 1), "f0: ü; mend it | f1: ü; mend it");
    for (count, length, end) in
        [(1, 2000, "…"), (3, 2000, "… (and 2 more)"), (9, 100, "mend it (and 5 more)")]
    {
        let note = told(count, length);
        assert!(note.len() <= 1024 && note.ends_with(end), "{} {note}", note.len());
    }
}
