//! Whatever the flows, and whoever answers when.

use super::testing::{Stage, WINDOW, frontend};
use crate::model::testing::cases;
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, time::Duration};

const CLUSTERS: [&str; 3] = ["a", "b", "c"];

/// Of each cluster: how many pods have a flow, and whether they answer.
type Step = Vec<(u8, bool)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Answers come and go in stretches: changes at every step would be no failure of anyone's.
    let stretch = (vec((0u8..4, prop::bool::weighted(0.4)), 3), 1usize..40);
    vec(stretch, 1..12).prop_map(|stretches| {
        stretches.into_iter().flat_map(|(step, times)| std::iter::repeat_n(step, times)).collect()
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn one_cluster_is_always_left_and_none_is_drained_that_has_answered_within_the_window(
        steps in steps(),
        ejects in any::<bool>(),
        restart in vec(prop::bool::weighted(0.02), 480),
    ) {
        let mut stage = Stage::empty(ejects);
        stage.add(1, &CLUSTERS.map(|cluster| (cluster, 3)));
        let mut answered = BTreeMap::new();
        let mut probes = BTreeMap::<u64, std::time::Instant>::new();
        for (n, step) in steps.iter().enumerate() {
            let before: Vec<String> = stage.drained().into_iter().map(str::to_owned).collect();
            for (cluster, &(pods, answers)) in CLUSTERS.iter().zip(step) {
                // To what is drained go probes alone.
                let is_drained = before.iter().any(|drained| drained == cluster);
                if !is_drained {
                    stage.flows(cluster, pods, answers);
                    if answers && pods > 0 {
                        answered.insert(*cluster, stage.now);
                    }
                }
            }
            stage.look();
            for cluster in CLUSTERS {
                let is_new = stage.drained().contains(&cluster) && !before.iter().any(|it| it == cluster);
                let recent = answered.get(cluster).is_some_and(|&at| stage.now - at < WINDOW);
                prop_assert!(!(is_new && recent), "{cluster} has answered");
            }
            prop_assert!(stage.drained().len() < CLUSTERS.len());
            prop_assert!(stage.findings.outages.endpoints.len() < 9);
            for probe in stage.findings.outages.probes.values() {
                probes.entry(probe.number).or_insert(stage.now);
            }
            let endpoints = &stage.watch.frontends[&frontend(1)];
            prop_assert!(endpoints.iter().any(|endpoint| endpoint.in_slots));
            if restart[n % restart.len()] {
                let before: Vec<String> = stage.drained().into_iter().map(str::to_owned).collect();
                stage.restart();
                prop_assert_eq!(stage.drained(), before);
                probes.clear();
            }
            stage.wait(Duration::from_millis(500));
        }
        // One frontend makes no more than one a window for each of what is out.
        let times: Vec<_> = probes.into_values().collect();
        let most = CLUSTERS.len() + 9;
        for span in times.windows(most + 1) {
            prop_assert!(span[most] - span[0] >= WINDOW, "{span:?}");
        }
    }
}
