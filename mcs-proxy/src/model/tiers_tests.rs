use super::*;
use crate::model::testing::cases;
use proptest::prelude::*;

#[test]
fn tiers_are_read_in_order_with_their_shares() {
    let tiers = Tiers::parse("local,member1=3+member2=1,others").unwrap();
    let [first, second, third] = tiers.as_slice() else { panic!("{tiers:?}") };
    assert_eq!(first.members(), [Member { cluster: ClusterSelector::Local, share: None }]);
    let named = |name: &str, share| Member { cluster: ClusterSelector::Named(name.into()), share };
    assert_eq!(second.members(), [named("member1", Some(3)), named("member2", Some(1))]);
    assert_eq!(third.members()[0].cluster, ClusterSelector::Others);
    assert_eq!([first, second, third].map(Tier::is_weighted), [false, true, false]);
    assert!(Tiers::parse("a+b=2").unwrap().as_slice()[0].is_weighted(), "one number is enough");
}

#[test]
fn errors_point_at_the_column() {
    for (text, column, words) in [
        ("", 1, "name is missing"),
        (",local", 1, "name is missing"),
        ("local,", 7, "name is missing"),
        ("local,,others", 7, "name is missing"),
        ("local+", 7, "name is missing"),
        ("local, others", 7, "` `: a cluster's name has lower-case letters"),
        ("local,Member1", 7, "`M`: a cluster's name"),
        ("local,mem_ber", 10, "`_`: a cluster's name"),
        ("local,-a", 7, "begins and ends"),
        ("äö,local", 1, "`ä`"),
        ("a=3+ü", 5, "`ü`"),
        ("a=0", 3, "from 1 to 1000"),
        ("a=1001", 3, "from 1 to 1000"),
        ("a=99999999999999999999", 3, "from 1 to 1000"),
        ("a=,b", 3, "from 1 to 1000"),
        ("a=+1", 3, "from 1 to 1000"),
        ("a=1=2", 3, "from 1 to 1000"),
        ("local,a+b,a", 11, "a is named twice"),
        ("local,others,local=2", 14, "local is named twice"),
        ("others,a,others", 10, "others is named twice"),
    ] {
        let error = Tiers::parse(text).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.to_string().contains(words), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("column {column}: ")), "{error}");
    }
    let long = format!("local,{}", "a".repeat(64));
    assert_eq!(Tiers::parse(&long).unwrap_err().column, 70);
}

#[test]
fn min_ready_is_a_number_or_a_percentage_of_what_is_listed() {
    for (text, needs) in [
        ("1", [1, 1, 1]),
        ("3", [3, 3, 3]),
        ("1%", [1, 1, 1]),
        ("50%", [1, 2, 5]),
        ("51%", [1, 2, 6]),
        ("100%", [1, 3, 10]),
    ] {
        let min_ready = MinReady::parse(text).unwrap();
        assert_eq!([0, 3, 10].map(|listed| min_ready.of(listed)), needs, "{text}");
        assert_eq!(min_ready.to_string(), text);
    }
    for (text, column) in [
        ("", 1),
        ("0", 1),
        ("-1", 1),
        ("+1", 1),
        ("0%", 1),
        ("101%", 1),
        ("%", 1),
        ("5 %", 2),
        ("50%%", 3),
        ("2x", 2),
    ] {
        assert_eq!(MinReady::parse(text).unwrap_err().column, column, "{text}");
    }
}

fn any_tiers() -> impl Strategy<Value = Tiers> {
    let names = prop::collection::btree_set("[a-z0-9]([-.a-z0-9]{0,8}[a-z0-9])?", 1..12);
    let shares = prop::collection::vec(prop::option::of(1..=LARGEST_SHARE), 12);
    let ends = prop::collection::vec(any::<bool>(), 12);
    (names, shares, ends).prop_map(|(names, shares, ends)| {
        let mut tiers = vec![Tier(Vec::new())];
        for ((name, share), end) in names.into_iter().zip(shares).zip(ends) {
            let cluster = match name.as_str() {
                "local" => ClusterSelector::Local,
                "others" => ClusterSelector::Others,
                _ => ClusterSelector::Named(name),
            };
            let member = Member { cluster, share };
            match tiers.last_mut() {
                Some(Tier(last)) if !end || last.is_empty() => last.push(member),
                Some(_) | None => tiers.push(Tier(vec![member])),
            }
        }
        Tiers(tiers)
    })
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn what_is_written_is_read_back(tiers in any_tiers()) {
        prop_assert_eq!(Tiers::parse(&tiers.to_string()), Ok(tiers));
    }

    #[test]
    fn any_text_is_read_or_refused_within_it(text in "\\PC{0,30}|[a-c=+,0-9 ]{0,30}") {
        for column in [
            Tiers::parse(&text).err().map(|error| error.column),
            MinReady::parse(&text).err().map(|error| error.column),
        ].into_iter().flatten() {
            prop_assert!((1..=text.chars().count() + 1).contains(&column));
        }
        if let Ok(tiers) = Tiers::parse(&text) {
            prop_assert_eq!(Tiers::parse(&tiers.to_string()), Ok(tiers));
        }
    }
}
