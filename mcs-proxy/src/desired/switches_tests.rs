//! What the settings switch off.

use super::testing::{decided_by, verdicts_by};
use crate::model::{
    ClusterSettings, ClusterState, Mode, Service, Settings, Tiers,
    testing::{service, slice},
};
use std::net::SocketAddr;

fn in_state(name: &str, state: ClusterState) -> Settings {
    let cluster = ClusterSettings { state, ..ClusterSettings::default() };
    Settings { clusters: [(name.to_owned(), cluster)].into(), ..Settings::default() }
}

#[test]
fn a_drained_cluster_takes_no_new_flows_and_keeps_those_it_has() {
    let serve = service("serve", "10.13.0.1");
    let slices = [
        slice("serve-a", "serve", "local", &["10.12.0.6"]),
        slice("serve-b", "serve", "member1", &["10.10.0.6"]),
    ];
    for (name, state, expected, slots, serving) in [
        (
            "member1",
            ClusterState::Drain,
            ["used", "cluster drained"],
            "10.12.0.6:8080",
            Some("10.10.0.6:8080"),
        ),
        ("member1", ClusterState::Drop, ["used", "cluster dropped"], "10.12.0.6:8080", None),
        (
            "member2",
            ClusterState::Drain,
            ["cluster drained", "used"],
            "10.10.0.6:8080",
            Some("10.12.0.6:8080"),
        ),
    ] {
        let settings = in_state(name, state);
        let told = verdicts_by(&serve, &slices, &settings);
        let expected =
            [format!("local 10.12.0.6: {}", expected[0]), format!("member1 10.10.0.6: {}", expected[1])];
        assert_eq!(told, expected, "{name} {state:?}");
        let decision = decided_by(&serve, &slices, &settings);
        let frontend = &decision.frontends[0].1.frontend;
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(frontend.slots[..], [address(slots)], "{name} {state:?}");
        assert_eq!(frontend.serving, Vec::from_iter(serving.map(address)), "{name} {state:?}");
    }
}

#[test]
fn a_drained_tier_is_one_without_endpoints() {
    let clusters = Tiers::parse("member1,local").unwrap();
    let serve = Service { clusters: Some(clusters), ..service("serve", "10.13.0.1") };
    let slices = [
        slice("serve-a", "serve", "local", &["10.12.0.6"]),
        slice("serve-b", "serve", "member1", &["10.10.0.6"]),
    ];
    let told = |settings: &Settings| verdicts_by(&serve, &slices, settings);
    assert_eq!(told(&Settings::default()), ["local 10.12.0.6: other tier", "member1 10.10.0.6: used"]);
    let drained = in_state("member1", ClusterState::Drain);
    assert_eq!(told(&drained), ["local 10.12.0.6: used", "member1 10.10.0.6: cluster drained"]);
}

#[test]
fn without_the_active_mode_there_are_no_frontends_and_who_is_left_alone_is_told() {
    let slices = [slice("serve-a", "serve", "local", &["10.12.0.6"])];
    let beneath = service("serve", "10.13.0.1");
    let labelled = Service { kube_proxy_beneath: false, ..beneath.clone() };
    for mode in [Mode::Drain, Mode::Bypass] {
        let settings = Settings { mode, ..Settings::default() };
        let decision = decided_by(&beneath, &slices, &settings);
        assert_eq!((decision.frontends.len(), decision.problems), (0, vec![]));
        let decision = decided_by(&labelled, &slices, &settings);
        assert_eq!(decision.frontends.len(), 0);
        let problems: Vec<String> = decision.problems.iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|problem| problem.contains("mode: active")), "{problems:?}");
    }
    let active = Settings::default();
    assert_eq!(decided_by(&beneath, &slices, &active).frontends.len(), 1);
}
