use super::*;
use crate::{
    desired::{
        FrontendKey,
        testing::{decided, decided_by, decided_with, flags, verdicts},
    },
    model::{
        ClusterSettings, EndpointSlice, Service, Settings,
        testing::{cases, endpoint, service, slice},
    },
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn serve(clusters: &str, min_ready: &str) -> Service {
    Service {
        clusters: Some(Tiers::parse(clusters).unwrap()),
        min_ready: Some(MinReady::parse(min_ready).unwrap()),
        ..service("serve", "10.13.0.1")
    }
}

/// So many ready endpoints in a cluster, and so many that are not.
fn cluster(number: usize, name: &str, ready: usize, down: usize) -> EndpointSlice {
    let mut slice = slice(&format!("{name}-slice"), "serve", name, &[]);
    for i in 0..ready + down {
        let condition = if i < ready { "ready" } else { "down" };
        slice.endpoints.push(endpoint(&format!("10.{number}.0.{}", i + 1), condition));
    }
    slice
}

/// Which clusters have how many slots, in the order of display.
fn shares(service: &Service, slices: &[EndpointSlice]) -> Vec<(String, usize)> {
    let decision = decided(service, slices);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for candidate in &decision.frontends[0].1.candidates {
        if candidate.verdict.takes_flows() {
            *shares.entry(candidate.slice.source.to_string()).or_default() += candidate.slots;
        }
    }
    shares.into_iter().collect()
}

fn named(clusters: &[(&str, usize)]) -> Vec<(String, usize)> {
    clusters.iter().map(|&(name, slots)| (name.to_owned(), slots)).collect()
}

/// Rows: tiers, min-ready; ready and not ready endpoints of this cluster (member2), member1 and member3; slots.
#[test]
fn the_first_tier_with_enough_takes_all_and_if_none_has_all_are_pooled() {
    type Row<'a> = (&'a str, &'a str, [(usize, usize); 3], &'a [(&'a str, usize)]);
    let rows: &[Row<'_>] = &[
        ("local,others", "1", [(2, 0), (1, 0), (1, 0)], &[("local", 2)]),
        ("local,others", "1", [(0, 2), (1, 0), (1, 0)], &[("member1", 1), ("member3", 1)]),
        ("member2,others", "1", [(2, 0), (1, 0), (1, 0)], &[("local", 2)]),
        ("local,member1,others", "2", [(1, 1), (2, 0), (5, 0)], &[("member1", 2)]),
        ("local,others", "50%", [(1, 2), (1, 0), (0, 0)], &[("member1", 1)]),
        ("local,others", "50%", [(2, 2), (1, 0), (0, 0)], &[("local", 2)]),
        ("local,member1", "3", [(1, 0), (2, 0), (9, 0)], &[("local", 1), ("member1", 2)]),
        ("local", "1", [(0, 0), (2, 0), (9, 0)], &[]),
        ("member1=3+member3=1,local", "1", [(1, 0), (1, 0), (1, 0)], &[("member1", 3), ("member3", 1)]),
        ("member1=3+member3=1,local", "1", [(1, 0), (3, 0), (1, 0)], &[("member1", 3), ("member3", 1)]),
        ("member1=3+member3=1,local", "1", [(1, 0), (1, 0), (2, 0)], &[("member1", 6), ("member3", 2)]),
        ("member1=3+member3=1,local", "1", [(1, 0), (0, 1), (1, 0)], &[("member3", 1)]),
        ("member1+member3,local", "1", [(1, 0), (3, 0), (1, 0)], &[("member1", 3), ("member3", 1)]),
        ("local=2+others", "1", [(1, 0), (1, 0), (1, 0)], &[("local", 4), ("member1", 1), ("member3", 1)]),
        ("others=1+local=1", "1", [(1, 0), (3, 0), (1, 0)], &[("local", 4), ("member1", 3), ("member3", 1)]),
    ];
    for (clusters, min_ready, ready, expected) in rows {
        let [ours, one, three] = *ready;
        let slices = [
            cluster(12, "local", ours.0, ours.1),
            cluster(10, "member1", one.0, one.1),
            cluster(14, "member3", three.0, three.1),
        ];
        assert_eq!(shares(&serve(clusters, min_ready), &slices), named(expected), "{clusters} {min_ready}");
    }
}

#[test]
fn what_a_tier_leaves_out_has_its_reason() {
    let slices = [cluster(12, "local", 1, 1), cluster(10, "member1", 1, 0), cluster(14, "member3", 1, 0)];
    assert_eq!(
        verdicts(&serve("local,member1", "1"), &slices),
        [
            "local 10.12.0.1: used",
            "local 10.12.0.2: not ready",
            "member1 10.10.0.1: other tier",
            "member3 10.14.0.1: in no tier",
        ]
    );
}

#[test]
fn a_cluster_in_no_tier_does_not_keep_the_others_from_their_last_resort() {
    let mut ours = cluster(12, "local", 0, 0);
    ours.endpoints.push(endpoint("10.12.0.1", "terminating"));
    let slices = [ours, cluster(10, "member1", 1, 0)];
    assert_eq!(
        verdicts(&serve("local", "1"), &slices),
        ["local 10.12.0.1: used (terminating)", "member1 10.10.0.1: in no tier"]
    );
    assert_eq!(
        verdicts(&serve("local,member1", "1"), &slices),
        ["local 10.12.0.1: terminating", "member1 10.10.0.1: used"]
    );
}

#[test]
fn a_cluster_that_nobody_knows_is_told_of_with_those_that_are() {
    let slices = [cluster(12, "local", 1, 0), cluster(10, "member1", 0, 1), cluster(14, "member3", 1, 0)];
    // By its slices, though none has a ready endpoint; this one's own name.
    for clusters in ["local,member1,others", "member2,member3=2+others"] {
        assert_eq!(decided(&serve(clusters, "1"), &slices).problems, [], "{clusters}");
    }
    let problems = decided(&serve("membr1+member3,member2,far", "1"), &slices).problems;
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected = |name: &str| {
        format!(
            "Service default/serve: metadata.annotations[mcs-proxy.io/clusters]: no cluster called `{name}` is known; it \
             gets its new flows once there is one; known are member1, member2, member3"
        )
    };
    assert_eq!(said, [expected("far"), expected("membr1")]);
    // The settings know of it.
    let settings =
        Settings { clusters: [("far".to_owned(), ClusterSettings::default())].into(), ..Settings::default() };
    assert_eq!(decided_by(&serve("far,others", "1"), &slices, &settings).problems, []);
}

#[test]
fn the_tiers_slots_let_the_other_tiers_flows_finish() {
    let slices = [cluster(12, "local", 1, 0), cluster(10, "member1", 1, 0), cluster(14, "member3", 1, 0)];
    let decision = decided(&serve("local,member1", "1"), &slices);
    let frontend = &decision.frontends[0].1.frontend;
    assert_eq!(frontend.slots[..], ["10.12.0.1:8080".parse().unwrap()]);
    let serving: Vec<_> = frontend.serving.iter().map(ToString::to_string).collect();
    assert_eq!(serving, ["10.10.0.1:8080", "10.14.0.1:8080"]);
}

/// A frontend through time: seconds, ready endpoints of local and member1, and who takes the new flows.
fn story(clusters: &str, min_ready: &str, steps: &[(u64, usize, usize, &str)]) {
    let begin = Instant::now();
    let mut standings: BTreeMap<FrontendKey, Standing> = BTreeMap::new();
    for &(second, ours, theirs, expected) in steps {
        let slices = [cluster(12, "local", ours, 0), cluster(10, "member1", theirs, 0)];
        let now = begin + Duration::from_secs(second);
        let service = serve(clusters, min_ready);
        let decision = decided_with(&service, &slices, &flags(), &standings, now);
        let (key, decided) = &decision.frontends[0];
        let used: std::collections::BTreeSet<_> = decided
            .candidates
            .iter()
            .filter(|candidate| candidate.verdict.takes_flows())
            .map(|candidate| candidate.slice.source.to_string())
            .collect();
        let used = used.into_iter().collect::<Vec<_>>().join("+");
        assert_eq!(used, expected, "{clusters}, {min_ready}, at {second} s");
        let standing = decided.standing.clone().unwrap();
        let due = standing.due(flags().tier_hold).map(|due| due.duration_since(begin).as_secs());
        assert!(due.is_none_or(|due| due > second), "due at {due:?}, and it is {second}");
        standings.insert(*key, standing);
    }
}

#[test]
fn spilling_over_is_at_once_and_coming_back_after_the_hold() {
    story(
        "local,others",
        "2",
        &[
            (0, 2, 2, "local"),
            (1, 1, 2, "member1"),
            (2, 2, 2, "member1"),
            (9, 1, 2, "member1"),
            (10, 2, 2, "member1"),
            (19, 2, 2, "member1"),
            (20, 2, 2, "local"),
            (21, 1, 2, "member1"),
            (22, 2, 2, "member1"),
            (23, 2, 0, "local"),
        ],
    );
}

#[test]
fn a_tier_that_has_never_been_active_is_taken_at_once() {
    story(
        "local,others",
        "1",
        &[(0, 0, 0, ""), (1, 0, 1, "member1"), (2, 1, 1, "local"), (3, 0, 1, "member1")],
    );
}

#[test]
fn a_pool_gives_way_after_the_hold_unless_it_is_empty() {
    story(
        "local,others",
        "2",
        &[(0, 2, 2, "local"), (1, 1, 1, "local+member1"), (2, 2, 1, "local+member1"), (12, 2, 1, "local")],
    );
    story("local,others", "2", &[(0, 2, 0, "local"), (1, 0, 0, ""), (2, 2, 0, "local")]);
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_tier_does_not_come_back_before_the_hold_and_does_after_it(
        changes in prop::collection::vec((0..8_u64, 0..3_usize), 1..30),
    ) {
        let begin = Instant::now();
        let (mut standings, mut second) = (BTreeMap::new(), 0);
        let service = serve("local,others", "1");
        let (mut ready_since, mut left) = (None, false);
        for (pause, ours) in changes {
            second += pause;
            let slices = [cluster(12, "local", ours, 0), cluster(10, "member1", 1, 0)];
            let now = begin + Duration::from_secs(second);
            let decision = decided_with(&service, &slices, &flags(), &standings, now);
            let (key, decided) = &decision.frontends[0];
            let back = decided.candidates.iter().any(|it| it.is_local() && it.verdict.takes_flows());
            if ours == 0 {
                prop_assert!(!back);
                (ready_since, left) = (None, left || !standings.is_empty());
            } else {
                let since = *ready_since.get_or_insert(second);
                let was_local = standings.values().any(|s: &Standing| s.active() == Active::Tier(0));
                let fresh = standings.values().all(|s: &Standing| s.best_ever != Active::Tier(0));
                prop_assert_eq!(back, was_local || fresh || second - since >= 10, "at {}", second);
            }
            standings.insert(*key, decided.standing.clone().unwrap());
        }
    }
}
