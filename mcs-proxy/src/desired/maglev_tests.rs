use super::*;
use proptest::{collection::btree_set, prelude::*};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Pods as clusters number them: neighbours.
fn neighbours(count: usize) -> Vec<SocketAddr> {
    (0..u32::try_from(count).unwrap())
        .map(|n| SocketAddr::new(Ipv4Addr::from_bits(0x0a0a_0006 + n).into(), 8080))
        .collect()
}

fn endpoints() -> impl Strategy<Value = Vec<SocketAddr>> {
    let address = prop_oneof![
        (0..1000_u32).prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a0a_0000 + n))),
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ];
    let endpoint = (address, prop_oneof![Just(8080), any::<u16>()]);
    btree_set(endpoint, 2..=40)
        .prop_map(|set| set.into_iter().map(|(address, port)| SocketAddr::new(address, port)).collect())
}

fn entries(table: &[SocketAddr]) -> BTreeMap<SocketAddr, usize> {
    let mut counts = BTreeMap::new();
    for &entry in table {
        *counts.entry(entry).or_default() += 1;
    }
    counts
}

/// The largest deviation from an even share, as a part of it.
fn unevenness(table: &[SocketAddr], endpoints: usize) -> f64 {
    let even = table.len() as f64 / endpoints as f64;
    let counts = entries(table);
    assert_eq!(counts.len(), endpoints);
    counts.values().map(|&count| (count as f64 - even).abs() / even).fold(0.0, f64::max)
}

/// Entries that change their owner when one endpoint goes, its own among them, as a part of all.
fn disruption(endpoints: &[SocketAddr], removed: usize) -> f64 {
    let mut rest = endpoints.to_vec();
    rest.remove(removed);
    let (before, after) = (table(endpoints), table(&rest));
    assert_eq!(before.len(), after.len());
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    changed as f64 / before.len() as f64
}

#[test]
fn sizes_are_prime_and_large_enough() {
    for size in SIZES {
        assert!(
            (2..=POWER).all(|divisor| !POWER.is_multiple_of(divisor) || !(size - 1).is_multiple_of(divisor))
        );
        assert!((2..size).take_while(|divisor| divisor * divisor <= size).all(|divisor| size % divisor != 0));
    }
    for (endpoints, expected) in [(0, 0), (1, 1), (2, 4093), (40, 4093), (41, 65_521), (10_000, 65_521)] {
        assert_eq!(size(endpoints), expected, "{endpoints} endpoints");
    }
}

#[test]
fn nothing_and_one_need_no_table() {
    assert_eq!(table(&[]), []);
    let one = neighbours(1);
    assert_eq!(table(&[one[0], one[0]]), one);
}

#[test]
fn removal_moves_less_than_twice_its_share_up_to_200_endpoints() {
    for count in [3, 5, 10, 20, 40, 42, 100, 200] {
        let endpoints = neighbours(count);
        assert!(unevenness(&table(&endpoints), count) < 1.0 / 99.0, "{count}");
        for removed in [0, count - 1] {
            let disruption = disruption(&endpoints, removed);
            assert!(disruption <= 2.0 / count as f64, "{removed} of {count}: {disruption}");
        }
    }
}

/// The whole table is pinned down here, by a few of its entries: another version of the daemon must make the same one,
/// or two nodes disagree while one of them is upgraded.
#[test]
fn the_table_never_changes() {
    let endpoints = neighbours(3);
    let table = table(&endpoints);
    let owners: Vec<_> =
        table.iter().take(16).map(|entry| endpoints.iter().position(|one| one == entry).unwrap()).collect();
    assert_eq!(owners, [1, 1, 0, 0, 1, 2, 1, 2, 0, 1, 0, 1, 0, 1, 0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shares_are_even(endpoints in endpoints()) {
        prop_assert!(unevenness(&table(&endpoints), endpoints.len()) < 0.01);
    }

    #[test]
    fn the_order_of_the_endpoints_does_not_matter(
        (endpoints, shuffled) in endpoints().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
    ) {
        prop_assert_eq!(table(&endpoints), table(&shuffled));
    }

    #[test]
    fn the_removal_of_one_moves_at_most_twice_its_share(
        endpoints in endpoints(),
        pick in any::<prop::sample::Index>(),
    ) {
        prop_assume!(endpoints.len() > 2);
        let disruption = disruption(&endpoints, pick.index(endpoints.len()));
        prop_assert!(disruption <= 2.0 / endpoints.len() as f64, "{} of {}", disruption, endpoints.len());
    }

    #[test]
    fn repeated_slots_are_weights(endpoints in endpoints(), weights in prop::collection::vec(1..9_usize, 40)) {
        let slots: Vec<_> = endpoints
            .iter()
            .zip(&weights)
            .flat_map(|(&endpoint, &weight)| std::iter::repeat_n(endpoint, weight))
            .collect();
        let table = table(&slots);
        let counts = entries(&table);
        for (endpoint, &weight) in endpoints.iter().zip(&weights) {
            let share = table.len() as f64 * weight as f64 / slots.len() as f64;
            let count = counts[endpoint] as f64;
            prop_assert!((count - share).abs() <= 1.0, "{}: {} of {}", endpoint, count, share);
        }
    }
}
