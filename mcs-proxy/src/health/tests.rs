use super::{
    Family,
    testing::{Stage, WINDOW, frontend, id, pod, way},
};
use mcs_proxy_ebpf::abi::BackendCounters;
use std::{sync::Arc, time::Duration};

const TICK: Duration = Duration::from_millis(500);

#[test]
fn a_cluster_without_answers_is_drained_once_the_window_is_over_and_not_before() {
    let mut stage = Stage::new(&[("a", 3), ("b", 3)]);
    let start = stage.now;
    while stage.drained().is_empty() {
        stage.flows("a", 3, false);
        stage.flows("b", 3, true);
        stage.look();
        assert!(stage.drained().is_empty() || stage.now - start == WINDOW, "{:?}", stage.now - start);
        stage.wait(TICK);
    }
    assert_eq!((stage.drained(), stage.kept()), (vec!["a"], vec![]));
}

#[test]
fn one_answer_in_a_window_is_enough() {
    let mut stage = Stage::new(&[("a", 9), ("b", 3)]);
    for round in 0..100 {
        stage.flows("a", 9, false);
        stage.flows("b", 3, true);
        // The last of its pods, every nine seconds.
        if round % 18 == 0 {
            stage.flow(1, "a", 9, true);
        }
        stage.look();
        stage.wait(TICK);
        assert_eq!(stage.drained(), [""; 0], "{round}");
    }
}

#[test]
fn it_takes_three_flows_to_three_pods_or_to_all_there_are() {
    // Pods, flows to each of the first of them; whether that is enough.
    for (pods, flows, is_enough) in [
        (3, &[1, 1, 1][..], true),
        (3, &[9, 9], false),
        (9, &[1, 1, 1], true),
        (9, &[5, 5], false),
        (2, &[1, 1], false),
        (2, &[2, 1], true),
        (2, &[9], false),
        (1, &[2], false),
        (1, &[3], true),
    ] {
        let mut stage = Stage::new(&[("a", pods), ("b", 1)]);
        for (pod, &flows) in (1..).zip(flows) {
            (0..flows).for_each(|_| stage.flow(1, "a", pod, false));
        }
        stage.flow(1, "b", 1, true);
        stage.look();
        stage.wait(WINDOW);
        stage.look();
        assert_eq!(stage.drained().len(), usize::from(is_enough), "{pods} pods, flows {flows:?}");
    }
}

#[test]
fn several_ports_of_one_pod_are_one() {
    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    stage.add(2, &[("a", 3), ("b", 1)]);
    stage.add(3, &[("a", 3), ("b", 1)]);
    (1..=3).for_each(|n| stage.flow(n, "a", 1, false));
    stage.look();
    stage.wait(WINDOW);
    stage.look();
    assert_eq!(stage.drained(), [""; 0]);
    // But what several Services see adds up.
    stage.flow(2, "a", 2, false);
    stage.flow(3, "a", 3, false);
    stage.look();
    stage.wait(WINDOW);
    stage.look();
    assert_eq!(stage.drained(), ["a"]);
}

#[test]
fn an_answer_to_one_service_counts_for_all() {
    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    stage.add(2, &[("a", 3), ("b", 1)]);
    for _ in 0..60 {
        stage.flows("a", 3, false);
        stage.flow(2, "a", 1, true);
        stage.look();
        stage.wait(TICK);
        assert_eq!(stage.drained(), [""; 0]);
    }
}

#[test]
fn the_families_are_judged_apart() {
    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    let six = |cluster: &str, n: u8| format!("[fd10:{cluster}::{n}]:8080").parse().unwrap();
    let key = crate::desired::FrontendKey { vip: "fd10:13::1".parse().unwrap(), ..frontend(1) };
    let endpoints =
        stage.watch.frontends[&frontend(1)].iter().zip(1..).map(|(endpoint, n)| super::Endpoint {
            address: six(&endpoint.cluster, n),
            backend: Some((1000 + u32::from(n), 1)),
            ..endpoint.clone()
        });
    let endpoints = endpoints.collect();
    stage.watch.frontends.insert(key, endpoints);
    for _ in 0..30 {
        stage.flows("a", 3, true);
        stage.flows("b", 1, true);
        for n in 1..=4 {
            let counters = stage.counters.entry(1000 + n).or_default();
            counters.flows += 1;
            counters.first_replies += u32::from(n == 4);
        }
        stage.look();
        stage.wait(TICK);
    }
    let drained: Vec<_> = stage.findings.outages.clusters.iter().cloned().collect();
    assert_eq!(drained, [(Arc::from("a"), Family::V6)]);
}

#[test]
fn only_those_that_the_settings_name_are_drained() {
    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    stage.watch.drained_on_failure.remove("a");
    for _ in 0..60 {
        stage.flows("a", 3, false);
        stage.flows("b", 1, true);
        stage.look();
        stage.wait(TICK);
        assert_eq!((stage.drained(), stage.kept()), (vec![], vec![]));
    }
    // From now on; and no longer.
    stage.watch.drained_on_failure.insert(Arc::from("a"));
    stage.look();
    assert_eq!(stage.drained(), ["a"]);
    stage.watch.drained_on_failure.remove("a");
    stage.look();
    assert_eq!(stage.drained(), [""; 0]);
    assert!(!stage.health.has_outages());
}

#[test]
fn never_is_a_cluster_drained_for_another_that_may_fail_as_well() {
    let mut stage = Stage::new(&[("a", 3), ("b", 3)]);
    for round in 0..100 {
        stage.flows("a", 3, false);
        // It begins to fail a moment later.
        stage.flows("b", 3, round < 3);
        stage.look();
        stage.wait(TICK);
        assert_eq!(stage.drained(), [""; 0], "{round}");
    }
    assert_eq!(stage.kept(), ["a", "b"]);
    // One of them recovers.
    stage.flows("b", 3, true);
    stage.look();
    assert_eq!((stage.drained(), stage.kept()), (vec!["a"], vec![]));
}

#[test]
fn the_last_cluster_stays_whatever_it_does() {
    let mut stage = Stage::new(&[("a", 3), ("b", 3)]);
    stage.drain_a();
    for _ in 0..100 {
        stage.flows("b", 3, false);
        stage.look();
        stage.wait(TICK);
        assert_eq!(stage.drained(), ["a"]);
    }
    assert_eq!(stage.kept(), ["b"]);
    let mut alone = Stage::new(&[("a", 3)]);
    alone.flows("a", 3, false);
    alone.look();
    alone.wait(WINDOW);
    alone.look();
    assert_eq!((alone.drained(), alone.kept()), (vec![], vec!["a"]));
}

#[test]
fn a_cluster_that_nobody_has_tried_yet_is_an_alternative() {
    let mut stage = Stage::new(&[("a", 3), ("b", 3)]);
    // In a lower tier.
    let endpoints = stage.watch.frontends[&frontend(1)].iter().cloned().map(|endpoint| {
        let in_slots = &*endpoint.cluster == "a";
        super::Endpoint { in_slots, backend: endpoint.backend.filter(|_| in_slots), ..endpoint }
    });
    let endpoints = endpoints.collect();
    stage.watch.frontends.insert(frontend(1), endpoints);
    stage.flows("a", 3, false);
    stage.look();
    let endpoints = stage.watch.frontends[&frontend(1)].clone();
    stage.wait(WINDOW);
    stage.watch.frontends.insert(frontend(1), endpoints);
    stage.look();
    assert_eq!(stage.drained(), ["a"]);
}

#[test]
fn what_is_drained_is_probed_by_one_flow_a_window_each_pod_in_its_turn_and_comes_back_with_an_answer() {
    let mut stage = Stage::new(&[("a", 3), ("b", 3)]);
    stage.drain_a();
    let drained = stage.now;
    let mut probes = Vec::new();
    while stage.now - drained <= 4 * WINDOW {
        stage.flows("b", 3, true);
        stage.look();
        let probe = stage.findings.outages.probes.get(&frontend(1)).copied();
        if let Some(probe) = probe.filter(|probe| probes.last().is_none_or(|(_, last)| last != probe)) {
            probes.push((stage.now - drained, probe));
        }
        stage.wait(TICK);
    }
    let pods: Vec<_> = probes.iter().map(|(_, probe)| probe.address).collect();
    assert_eq!(pods, [1, 2, 3, 1].map(|n| pod("a", n)));
    for (n, (at, _)) in (1..).zip(&probes) {
        assert_eq!(*at, n * WINDOW);
    }
    stage.flow(1, "a", 1, true);
    stage.look();
    assert_eq!((stage.drained(), stage.findings.outages.probes.len()), (vec![], 0));
    // What was not answered before counts for nothing by now.
    stage.wait(2 * WINDOW);
    stage.flow(1, "a", 2, false);
    stage.look();
    stage.wait(TICK);
    stage.look();
    assert_eq!(stage.drained(), [""; 0]);
}

#[test]
fn a_probe_is_made_where_flows_are() {
    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    stage.add(2, &[("a", 3), ("b", 1)]);
    // It cannot turn to another, and so has no slot for a probe: its flows are probes enough.
    stage.add(3, &[("a", 3)]);
    stage.drain_a();
    for n in [2, 1, 2] {
        stage.wait(WINDOW);
        stage.flow(n, "b", 1, true);
        stage.look();
        assert_eq!(stage.findings.outages.probes.keys().copied().collect::<Vec<_>>(), [frontend(n)]);
    }
    stage.flow(3, "a", 1, true);
    stage.look();
    assert_eq!(stage.drained(), [""; 0]);
}

#[test]
fn a_restart_forgets_no_outage_and_makes_none_of_flows_from_before() {
    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    stage.drain_a();
    stage.restart();
    assert_eq!(stage.drained(), ["a"]);
    assert_eq!(stage.findings.outages.probes.len(), 1, "who knows for how long nobody has looked");
    stage.flow(1, "a", 2, true);
    stage.look();
    assert_eq!(stage.drained(), [""; 0]);

    let mut stage = Stage::new(&[("a", 3), ("b", 1)]);
    for _ in 0..18 {
        stage.flows("a", 3, false);
        stage.flows("b", 1, true);
        stage.look();
        stage.wait(TICK);
    }
    stage.restart();
    for _ in 0..60 {
        stage.flows("b", 1, true);
        stage.look();
        stage.wait(TICK);
        assert_eq!(stage.drained(), [""; 0]);
    }
}

#[test]
fn counters_wrap_and_ids_pass_on() {
    let mut stage = Stage::new(&[("a", 1), ("b", 1)]);
    let near = BackendCounters { flows: u32::MAX - 1, first_replies: u32::MAX - 5, ..Default::default() };
    stage.counters.insert(id(1, "a", 1), near);
    stage.restart();
    for _ in 0..9 {
        stage.flow(1, "a", 1, true);
    }
    stage.look();
    stage.wait(WINDOW);
    stage.look();
    assert_eq!(stage.drained(), [""; 0], "nine flows, nine answers");
    // The id's next owner begins from zero: that is neither 4 billion flows nor as many answers.
    stage.counters.insert(id(1, "a", 1), BackendCounters::default());
    stage.look();
    stage.wait(WINDOW);
    stage.look();
    assert_eq!(stage.drained(), [""; 0]);
    for _ in 0..3 {
        stage.flow(1, "a", 1, false);
    }
    stage.look();
    stage.wait(WINDOW);
    stage.look();
    assert_eq!(stage.drained(), ["a"]);
    assert_eq!(stage.findings.outages.clusters.first(), Some(&way("a")));
}

#[test]
fn an_endpoint_is_ejected_while_others_of_its_cluster_answer_and_comes_back() {
    for ejects in [false, true] {
        let mut stage = Stage::empty(ejects);
        stage.add(1, &[("a", 3), ("b", 1)]);
        for _ in 0..30 {
            stage.flow(1, "a", 1, false);
            stage.flow(1, "a", 2, true);
            stage.flow(1, "b", 1, true);
            stage.look();
            stage.wait(TICK);
        }
        assert_eq!(stage.drained(), [""; 0]);
        if !ejects {
            assert_eq!(stage.ejected(), []);
            continue;
        }
        assert_eq!(stage.ejected(), [pod("a", 1)]);
        assert_eq!(stage.findings.outages.probes.get(&frontend(1)).map(|probe| probe.address), None);
        stage.wait(WINDOW);
        stage.look();
        assert_eq!(
            stage.findings.outages.probes.get(&frontend(1)).map(|probe| probe.address),
            Some(pod("a", 1))
        );
        stage.flow(1, "a", 1, true);
        stage.look();
        assert_eq!(stage.ejected(), []);
    }
}

#[test]
fn an_endpoint_is_not_ejected_if_its_whole_cluster_fails_or_nobody_knows() {
    let mut stage = Stage::empty(true);
    stage.add(1, &[("a", 3), ("b", 1)]);
    for _ in 0..60 {
        stage.flow(1, "a", 1, false);
        stage.flow(1, "b", 1, true);
        stage.look();
        stage.wait(TICK);
        assert_eq!(stage.ejected(), []);
    }
}
