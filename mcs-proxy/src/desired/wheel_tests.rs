use super::*;
use crate::model::testing::cases;
use proptest::prelude::*;

/// Groups of members `a1 a2 …`, `b1 …`, by share and size.
fn turn_of(groups: &[(u64, usize)]) -> Vec<(usize, usize)> {
    let groups: Vec<_> = groups
        .iter()
        .enumerate()
        .map(|(group, &(share, size))| Group { share, members: (0..size).map(|i| (group, i)).collect() })
        .collect();
    turn(&groups)
}

fn letters(turn: &[(usize, usize)]) -> String {
    turn.iter().map(|&(group, _)| char::from(b'a' + group as u8)).collect()
}

#[test]
fn groups_take_turns_without_bursts() {
    for (groups, expected) in [
        (&[(1, 1)][..], "a"),
        (&[(1, 1), (1, 1)], "ab"),
        (&[(3, 1), (1, 1)], "aaab"),
        (&[(2, 2), (1, 1), (1, 1)], "abac"),
        (&[(5, 1), (1, 1), (1, 1)], "aaabaac"),
        (&[(1, 3), (1, 1)], "ababab"),
        (&[(4, 4), (4, 4)], "abababab"),
        (&[(7, 0), (1, 1)], "b"),
        (&[(7, 0)], ""),
        (&[], ""),
    ] {
        assert_eq!(letters(&turn_of(groups)), expected, "{groups:?}");
    }
}

#[test]
fn members_of_a_group_take_turns() {
    assert_eq!(turn_of(&[(1, 3), (1, 1)]), [(0, 0), (1, 0), (0, 1), (1, 0), (0, 2), (1, 0)]);
}

#[test]
fn a_turn_is_no_longer_than_its_bound_whatever_the_shares() {
    assert_eq!(turn_of(&[(100_000, 100_000)]).len(), 100_000, "all alike: one slot each");
    assert!(turn_of(&[(1000, 1), (1, 1000)]).len() <= LONGEST as usize);
    let many: Vec<_> = (0..40).map(|i| (1 + i * 17 % 997, 1 + i as usize * 7 % 131)).collect();
    assert!(turn_of(&many).len() <= LONGEST as usize);
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn shares_are_within_a_slot_of_exact_over_the_turn_and_groups_at_every_point_of_it(
        groups in prop::collection::vec((1..=100_u64, 1..40_usize), 1..7),
    ) {
        let turn = turn_of(&groups);
        let shares: u64 = groups.iter().map(|(share, _)| share).sum();
        let total = turn.len() as f64;
        prop_assert!(turn.len() <= LONGEST as usize);
        for (group, &(share, size)) in groups.iter().enumerate() {
            let rate = share as f64 / shares as f64;
            let mut had = 0_u32;
            let mut each = vec![0_u32; size];
            for (position, &(at, member)) in turn.iter().enumerate() {
                if at == group {
                    had += 1;
                    each[member] += 1;
                }
                // A group's count is rounded once for the turn; the turn then keeps to the rounded rate.
                prop_assert!((f64::from(had) - rate * (position + 1) as f64).abs() < 2.0);
            }
            prop_assert!((f64::from(had) - rate * total).abs() < 1.0, "group {group}: {had}");
            for count in each {
                prop_assert!((f64::from(count) - rate * total / size as f64).abs() < 1.0);
                prop_assert!(count > 0, "every endpoint has a slot where the bound allows it");
            }
        }
    }

    #[test]
    fn where_all_count_alike_each_has_one_slot_and_no_group_comes_in_bursts(
        sizes in prop::collection::vec(1..60_usize, 1..8),
    ) {
        let groups: Vec<_> = sizes.iter().map(|&size| (size as u64, size)).collect();
        let turn = turn_of(&groups);
        let mut sorted = turn.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!((sorted.len(), turn.len()), (sizes.iter().sum(), sizes.iter().sum()));
        for (group, &size) in sizes.iter().enumerate() {
            let mut had = 0;
            for (position, &(at, _)) in turn.iter().enumerate() {
                had += u32::from(at == group);
                let exact = size as f64 * (position + 1) as f64 / turn.len() as f64;
                prop_assert!((f64::from(had) - exact).abs() < 1.0);
            }
        }
    }
}
