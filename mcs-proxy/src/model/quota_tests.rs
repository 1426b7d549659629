use super::*;
use crate::{
    model::{
        ClusterSettings, Model, SettingsObject,
        testing::{endpoint, key, slice},
    },
    source::{Event, Object},
};

const LIMITS: Limits = Limits { per_service: 4, per_cluster: 6, per_node: 8 };

fn model() -> Model {
    Model::default().limited(LIMITS)
}

/// A slice with endpoints 10.10.0.`first` and so on.
fn import(name: &str, service: &str, cluster: &str, first: u8, count: u8) -> EndpointSlice {
    let addresses: Vec<String> = (first..first + count).map(|i| format!("10.10.0.{i}")).collect();
    slice(name, service, cluster, &addresses.iter().map(String::as_str).collect::<Vec<_>>())
}

fn put(model: &mut Model, slice: EndpointSlice) {
    model.apply(Event::Applied(Object::EndpointSlice(slice)));
}

fn take(model: &mut Model, name: &str) {
    model.apply(Event::Deleted(ObjectKind::EndpointSlice, key(name)));
}

fn counts(model: &Model, service: &str) -> Vec<usize> {
    model.slices_of(&key(service)).map(|slice| slice.endpoints.len()).collect()
}

fn said(model: &Model) -> Vec<String> {
    model.problems().map(ToString::to_string).collect()
}

#[test]
fn past_a_limit_nothing_is_added_and_nobody_elses_endpoints_go() {
    for (what, last, flag) in [
        ("of a Service", import("x", "a", "member1", 100, 3), "--max-service-endpoints"),
        ("of a cluster", import("x", "c", "member1", 100, 4), "--max-cluster-endpoints"),
        ("of the node", import("x", "c", "member4", 100, 3), "--max-imported-endpoints"),
    ] {
        let mut model = model();
        put(&mut model, import("a", "a", "member1", 1, 2));
        put(&mut model, import("b", "b", "member1", 10, 2));
        put(&mut model, import("c", "c", "member3", 20, 2));
        put(&mut model, slice("local", "c", "local", &["10.12.0.1", "10.12.0.2", "10.12.0.3"]));
        put(&mut model, last.clone());
        assert_eq!((counts(&model, "a")[0], counts(&model, "b")[0]), (2, 2), "{what}");
        assert_eq!(counts(&model, "c")[..2], [2, 3], "{what}");
        assert_eq!(counts(&model, &last.service).last(), Some(&0), "{what}");
        let said = said(&model);
        assert!(
            said.len() == 1 && said[0].contains(flag) && said[0].starts_with("EndpointSlice default/x: "),
            "{said:?}"
        );
    }
}

#[test]
fn of_a_slice_that_grew_too_large_those_that_were_there_stay_with_their_new_conditions() {
    let mut model = model();
    put(&mut model, import("a", "a", "member1", 1, 3));
    let mut grown = import("a", "a", "member1", 2, 9);
    grown.endpoints[0] = endpoint("10.10.0.2", "down");
    put(&mut model, grown);
    let kept: Vec<_> = model.slices_of(&key("a")).flat_map(|slice| slice.endpoints.clone()).collect();
    assert_eq!(kept, [endpoint("10.10.0.2", "down"), endpoint("10.10.0.3", "ready")]);
    put(&mut model, import("a", "a", "member1", 2, 4));
    assert_eq!(counts(&model, "a"), [4]);
    assert_eq!(said(&model), <[String; 0]>::default());
}

#[test]
fn what_was_refused_comes_in_once_there_is_room() {
    let mut model = model();
    put(&mut model, import("a", "a", "member1", 1, 4));
    put(&mut model, import("b", "a", "member1", 10, 2));
    assert_eq!(counts(&model, "a"), [4, 0]);
    take(&mut model, "a");
    assert_eq!(counts(&model, "a"), [2]);
    assert_eq!(said(&model), <[String; 0]>::default());
    take(&mut model, "b");
    assert_eq!((model.slices_of(&key("a")).count(), said(&model).len()), (0, 0));
}

#[test]
fn the_settings_say_how_much_a_cluster_may_bring_and_raising_it_lets_the_rest_in() {
    let settings = |max_endpoints| SettingsObject {
        key: key("settings"),
        settings: Settings {
            clusters: [(
                "member1".to_owned(),
                ClusterSettings { max_endpoints: Some(max_endpoints), ..Default::default() },
            )]
            .into(),
            ..Default::default()
        },
        malformed: BTreeSet::new(),
        problems: Vec::new(),
    };
    let mut model = model();
    model.apply(Event::Applied(Object::Settings(settings(1))));
    put(&mut model, import("a", "a", "member1", 1, 2));
    put(&mut model, import("b", "b", "member3", 10, 2));
    assert_eq!((counts(&model, "a"), counts(&model, "b")), (vec![0], vec![2]));
    assert!(said(&model)[0].contains("max-endpoints of this cluster"), "{:?}", said(&model));
    model.apply(Event::Applied(Object::Settings(settings(2))));
    assert_eq!(counts(&model, "a"), [2]);
}

#[test]
fn a_million_endpoints_take_no_more_room_than_their_limit() {
    let mut model = Model::default().limited(Limits { per_service: 50, per_cluster: 1000, per_node: 2000 });
    for number in 0..1000_u32 {
        let mut huge = slice(&format!("s{number}"), &format!("a{}", number % 100), "member1", &[]);
        let address = |i: u32| std::net::Ipv4Addr::from_bits(0x0b00_0000 + number * 1000 + i).to_string();
        huge.endpoints = (0..1000).map(|i| endpoint(&address(i), "ready")).collect();
        put(&mut model, huge);
    }
    assert!(model.quotas_for_tests().waiting_endpoints <= 2000);
    assert_eq!(model.quotas_for_tests().total, 0);
    assert_eq!(said(&model).len(), 1000);
}
