use super::*;
use crate::{
    model::Model,
    source::{Event, Object},
};
use proptest::prelude::*;

fn config_map(values: &[(&str, &str)]) -> api::ConfigMap {
    let mut object = api::ConfigMap::default();
    object.metadata.name = Some("settings".into());
    object.metadata.namespace = Some("mcs-proxy".into());
    object.data = Some(values.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect());
    object
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn every_field_is_read_and_what_is_left_out_stands_at_its_default() {
    let read = settings(&config_map(&[
        ("mode", "drain\n"),
        (
            "member1",
            "state: drop\ncidrs: [fd00:10::/48, 10.10.0.0/16]\non-failure: drain\nzones: shared\nmax-endpoints: 10000\n",
        ),
        ("member3", "{state: drain}"),
        ("member4", "{}"),
    ]));
    assert_eq!((read.problems, read.malformed), (vec![], BTreeSet::new()));
    assert_eq!(read.settings.mode, Mode::Drain);
    assert_eq!(
        read.settings.cluster("member1"),
        ClusterSettings {
            state: ClusterState::Drop,
            cidrs: nets(&["10.10.0.0/16", "fd00:10::/48"]),
            on_failure: OnFailure::Drain,
            zones: Zones::Shared,
            max_endpoints: Some(10_000),
        }
    );
    let drained = ClusterSettings { state: ClusterState::Drain, ..ClusterSettings::default() };
    assert_eq!(read.settings.cluster("member3"), drained);
    assert_eq!(read.settings.cluster("member4"), ClusterSettings::default());
    assert_eq!(read.settings.cluster("unnamed"), ClusterSettings::default());
}

#[test]
fn a_value_that_is_not_understood_is_named_with_key_field_and_way_out() {
    for (key, value, field, message, way_out) in [
        ("mode", "of", "data[mode]", "`of`", "active, drain, bypass"),
        ("mode", "[drain]", "data[mode]", "[\\\"drain\\\"]", "active, drain, bypass"),
        ("mode", "", "data[mode]", "`null`", "active, drain, bypass"),
        ("member1", "drain", "data[member1]", "no mapping", "{state: drain}"),
        ("member1", "{state: [", "data[member1]", "no YAML", "mend it"),
        ("member1", "{state: Drain}", "data[member1].state", "`Drain`", "active, drain, drop"),
        ("member1", "{sate: drain}", "data[member1]", "`sate` is no field", "state, cidrs"),
        ("member1", "{cidrs: 10.0.0.0/8}", "data[member1].cidrs", "no list", "[10.10.0.0/16"),
        ("member1", "{cidrs: [10.10.0.1/16]}", "data[member1].cidrs[0]", "beyond", "write 10.10.0.0/16"),
        ("member1", "{cidrs: [a]}", "data[member1].cidrs[0]", "`a`", "[10.10.0.0/16"),
        ("member1", "{on-failure: drop}", "data[member1].on-failure", "`drop`", "keep, drain"),
        ("member1", "{zones: true}", "data[member1].zones", "`true`", "own, shared"),
        ("member1", "{max-endpoints: -1}", "data[member1].max-endpoints", "`-1`", "10000"),
        ("member1", "{max-endpoints: 1.5}", "data[member1].max-endpoints", "`1.5`", "10000"),
        ("Member_1", "{state: drain}", "data[Member_1]", "neither `mode` nor", "rename"),
    ] {
        let read = settings(&config_map(&[(key, value)]));
        let [problem] = &read.problems[..] else { panic!("{key}: {value}: {:?}", read.problems) };
        assert_eq!(problem.field, field, "{problem}");
        assert!(problem.message.contains(message), "{problem}");
        assert!(problem.remedy.contains("last good value") && problem.remedy.contains(way_out), "{problem}");
        assert_eq!(problem.object.to_string(), "ConfigMap mcs-proxy/settings");
        assert_eq!((read.settings, read.malformed), (Settings::default(), [key.to_owned()].into()));
    }
}

#[test]
fn a_malformed_value_keeps_the_last_good_one_and_the_others_change() {
    let mut model = Model::default();
    let mut put = |values: &[(&str, &str)]| {
        model.apply(Event::Applied(Object::Settings(settings(&config_map(values)))));
        (model.settings().clone(), model.problems().count())
    };
    put(&[("mode", "drain"), ("member1", "{state: drop}"), ("member3", "{state: drain}")]);
    let (kept, problems) = put(&[("mode", "of"), ("member1", "{state: dorp}"), ("member4", "{zones: x}")]);
    assert_eq!((kept.mode, kept.cluster("member1").state), (Mode::Drain, ClusterState::Drop));
    assert_eq!(kept.cluster("member3"), ClusterSettings::default(), "no longer named");
    assert!(!kept.clusters.contains_key("member4"), "nothing was good before");
    assert_eq!(problems, 3);
    let (kept, problems) = put(&[("mode", "of"), ("member1", "{state: dorp}")]);
    assert_eq!((kept.mode, kept.cluster("member1").state, problems), (Mode::Drain, ClusterState::Drop, 2));

    let gone = NamespacedName::new("mcs-proxy", "settings");
    model.apply(Event::Deleted(ObjectKind::ConfigMap, gone));
    assert_eq!((model.settings(), model.problems().count()), (&Settings::default(), 0));
}

proptest! {
    #![proptest_config(crate::model::testing::cases(256))]

    #[test]
    fn arbitrary_values_never_panic_and_are_either_read_or_told_of(key in ".{0,12}", value in ".{0,40}") {
        let read = settings(&config_map(&[(&key, &value)]));
        prop_assert_eq!(read.malformed.len(), read.problems.len());
    }
}
