use super::*;
use crate::model::{
    Malformed, OptIn,
    testing::{endpoint, key, service, slice},
};
use mcs_proxy_ebpf::abi::Algorithm;

fn put(slice: EndpointSlice) -> Event {
    Event::Applied(Object::EndpointSlice(slice))
}

fn put_service(service: Service) -> Event {
    Event::Applied(Object::Service(service))
}

fn problem(kind: ObjectKind, name: &str, message: &str) -> Problem {
    Problem {
        object: ObjectRef { kind, namespace: "default".into(), name: name.into() },
        field: "spec".into(),
        message: message.into(),
        remedy: "mend it".into(),
    }
}

#[test]
fn an_event_affects_the_services_it_changes_and_no_others() {
    let mut model = Model::default();
    let import = || slice("member1-a", "a", "member1", &["10.10.0.6"]);
    let mut changed = import();
    changed.endpoints = vec![endpoint("10.10.0.6", "terminating")];
    let moved = EndpointSlice { service: "b".into(), ..import() };
    for (what, event, affected) in [
        ("a new slice", put(import()), vec!["a"]),
        ("the same again", put(import()), vec![]),
        ("a new Service", put_service(service("a", "10.13.0.1")), vec!["a"]),
        ("the same again", put_service(service("a", "10.13.0.1")), vec![]),
        ("a changed slice", put(changed), vec!["a"]),
        ("a slice that moves to another Service", put(moved), vec!["a", "b"]),
        ("the end of a slice", Event::Deleted(ObjectKind::EndpointSlice, key("member1-a")), vec!["b"]),
        ("the end of nothing", Event::Deleted(ObjectKind::EndpointSlice, key("member1-a")), vec![]),
        ("the end of a Service", Event::Deleted(ObjectKind::Service, key("a")), vec!["a"]),
        ("the end of nothing", Event::Deleted(ObjectKind::Service, key("a")), vec![]),
        ("a problem", Event::Problem(problem(ObjectKind::Service, "a", "")), vec![]),
    ] {
        assert_eq!(model.apply(event), affected.into_iter().map(key).collect(), "{what}");
    }
    assert_eq!(model.slices_of(&key("a")).count() + model.slices_of(&key("b")).count(), 0);
}

#[test]
fn a_complete_list_takes_away_what_it_lacks() {
    let mut model = Model::default();
    model.apply(put(slice("a1", "a", "local", &["10.12.0.1"])));
    model.apply(put(slice("a2", "a", "local", &["10.12.0.2"])));
    model.apply(put(slice("b1", "b", "local", &["10.12.0.3"])));
    let list =
        ["a1", "c1"].map(|name| Object::EndpointSlice(slice(name, &name[..1], "local", &["10.12.0.1"])));
    let affected = model.apply(Event::Replaced(ObjectKind::EndpointSlice, list.to_vec()));
    assert_eq!(affected, ["a", "b", "c"].map(key).into());
    let names: Vec<_> = model.slices_of(&key("a")).map(|slice| &*slice.key.name).collect();
    assert_eq!(names, ["a1"]);
    assert_eq!(model.slices_of(&key("b")).count(), 0);
    let again = Event::Replaced(ObjectKind::EndpointSlice, list.to_vec());
    assert!(model.apply(again).is_empty(), "a resync changes nothing");
}

#[test]
fn synced_is_when_every_kind_was_listed_once() {
    let mut model = Model::default();
    model.apply(put_service(service("a", "10.13.0.1")));
    assert!(!model.is_synced());
    model.apply(Event::Replaced(ObjectKind::EndpointSlice, vec![]));
    assert!(!model.is_synced());
    model.apply(Event::Replaced(ObjectKind::Service, vec![]));
    assert!(model.is_synced());
    assert_eq!(model.services().count(), 0);
}

#[test]
fn a_malformed_value_keeps_the_last_good_one_and_the_rest_changes() {
    let mut model = Model::default();
    let good = Service { algorithm: Some(Algorithm::Random), ..service("a", "10.13.0.1") };
    let malformed = Service {
        opt_in: OptIn::Unsaid,
        algorithm: None,
        malformed: Malformed { opt_in: true, algorithm: true, ..Malformed::default() },
        ..service("a", "10.13.0.2")
    };
    model.apply(put_service(malformed.clone()));
    assert_eq!(model.service(&key("a")).unwrap().opt_in, OptIn::Unsaid, "nothing was good before");

    model.apply(put_service(good));
    model.apply(put_service(malformed.clone()));
    let kept = model.service(&key("a")).unwrap();
    assert_eq!((kept.opt_in, kept.algorithm), (OptIn::Annotation, Some(Algorithm::Random)));
    assert_eq!(kept.cluster_ips, malformed.cluster_ips);

    model.apply(Event::Replaced(ObjectKind::Service, vec![Object::Service(malformed)]));
    let kept = model.service(&key("a")).unwrap();
    assert_eq!(
        (kept.opt_in, kept.algorithm),
        (OptIn::Annotation, Some(Algorithm::Random)),
        "nor by a resync"
    );
}

/// Rows: before, as read now beside a malformed annotation, and what holds.
#[test]
fn a_malformed_annotation_keeps_what_the_annotation_said_and_not_what_the_label_did() {
    for (before, now, expected) in [
        (OptIn::Annotation, OptIn::Unsaid, OptIn::Annotation),
        (OptIn::Annotation, OptIn::ProxyName, OptIn::Annotation),
        (OptIn::Refused, OptIn::ProxyName, OptIn::Refused),
        (OptIn::ProxyName, OptIn::Unsaid, OptIn::Unsaid),
        (OptIn::OtherProxy, OptIn::ProxyName, OptIn::ProxyName),
    ] {
        let mut model = Model::default();
        model.apply(put_service(Service { opt_in: before, ..service("a", "10.13.0.1") }));
        let malformed = Malformed { opt_in: true, ..Malformed::default() };
        model.apply(put_service(Service { opt_in: now, malformed, ..service("a", "10.13.0.1") }));
        assert_eq!(model.service(&key("a")).unwrap().opt_in, expected, "{before:?} {now:?}");
    }
}

#[test]
fn problems_last_as_long_as_their_cause() {
    let mut model = Model::default();
    let flawed =
        Service { problems: vec![problem(ObjectKind::Service, "a", "port 0")], ..service("a", "10.13.0.1") };
    let messages =
        |model: &Model| model.problems().map(|problem| problem.message.clone()).collect::<Vec<_>>();
    model.apply(put_service(flawed.clone()));
    model.apply(Event::Problem(problem(ObjectKind::File, "a.yaml", "half of it")));
    model.apply(Event::Problem(problem(ObjectKind::File, "a.yaml", "half of it")));
    assert_eq!(messages(&model), ["half of it", "port 0"]);

    assert!(model.apply(put_service(service("a", "10.13.0.1"))).is_empty(), "mended, and otherwise the same");
    assert_eq!(messages(&model), ["half of it"]);
    model.apply(Event::Mended(problem(ObjectKind::File, "a.yaml", "").object));
    assert_eq!(messages(&model), <[&str; 0]>::default());

    model.apply(put_service(flawed));
    model.apply(Event::Deleted(ObjectKind::Service, key("a")));
    assert_eq!(messages(&model), <[&str; 0]>::default());
}

#[test]
fn a_change_of_our_node_affects_every_service_and_a_heartbeat_none() {
    let mut model = Model::default();
    model.apply(put_service(service("a", "10.13.0.1")));
    model.apply(put_service(service("b", "10.13.0.2")));
    let node = |zone: &str| Node {
        key: NamespacedName::new("", "member2-node-1"),
        zone: Some(zone.into()),
        addresses: Vec::new(),
        problems: Vec::new(),
    };
    let all = BTreeSet::from(["a", "b"].map(key));
    assert_eq!(model.apply(Event::Applied(Object::Node(node("zone-a")))), all);
    assert!(model.apply(Event::Replaced(ObjectKind::Node, vec![Object::Node(node("zone-a"))])).is_empty());
    assert_eq!(model.apply(Event::Applied(Object::Node(node("zone-b")))), all);
    assert_eq!(model.node().unwrap().zone.as_deref(), Some("zone-b"));
    assert_eq!(model.apply(Event::Replaced(ObjectKind::Node, vec![])), all);
    assert_eq!(model.node(), None);
}

#[test]
fn an_address_that_becomes_a_clusterip_affects_those_who_import_it_and_so_does_its_end() {
    let mut model = Model::default();
    let services = vec![Object::Service(service("a", "10.13.0.1"))];
    model.apply(Event::Replaced(ObjectKind::Service, services));
    let slices = vec![
        Object::EndpointSlice(slice("import", "a", "member1", &["10.13.0.2", "10.10.0.6"])),
        Object::EndpointSlice(slice("local", "b", "local", &["10.13.0.2"])),
    ];
    model.apply(Event::Replaced(ObjectKind::EndpointSlice, slices));
    for (what, event, affected) in [
        ("it appears", put_service(service("c", "10.13.0.2")), vec!["a", "c"]),
        ("another has it, too", put_service(service("d", "10.13.0.2")), vec!["c", "d"]),
        ("one gives it up", put_service(service("c", "10.13.0.3")), vec!["c", "d"]),
        ("it goes", Event::Deleted(ObjectKind::Service, key("d")), vec!["a", "d"]),
    ] {
        assert_eq!(model.apply(event), affected.into_iter().map(key).collect(), "{what}");
    }
}
