use super::*;
use crate::observe::{line::Level, vitals::InterfaceFacts};
use crate::source::Trouble;
use std::{collections::BTreeMap, time::Instant};

fn told(facts: &Facts, troubles: &[(ObjectKind, &str)], drift: Option<Drift>) -> Status {
    let identity = Identity { cluster: "member2".into(), node: "member2-node-1".into() };
    let trouble = |why: &str| Trouble { why: why.to_owned(), since: Instant::now() };
    let troubles = troubles.iter().map(|(kind, why)| (*kind, trouble(why))).collect();
    status(&identity, facts, &troubles, Duration::ZERO, Duration::from_secs(5), drift)
}

#[test]
fn each_trouble_is_a_line_of_its_level_with_a_way_out() {
    let none = || Some(Drift::default());
    let fill = |in_use| MapFill { map: "services", in_use, capacity: 100, flag: "--max-frontends" };
    let well = Facts { tables: vec![fill(50)], ..Facts::default() };
    for (facts, troubles, drift, part, level, says) in [
        (well.clone(), &[][..], none(), "", Level::Ok, ""),
        (well.clone(), &[(ObjectKind::Node, "403")][..], none(), "source", Level::Failed, "403"),
        (
            Facts { awaited: vec![ObjectKind::Service], ..well.clone() },
            &[],
            none(),
            "source",
            Level::Warning,
            "since the daemon started 5s ago: no complete list yet of Service",
        ),
        (
            Facts { awaited: vec![ObjectKind::Service], ..well.clone() },
            &[(ObjectKind::Service, "refused")],
            none(),
            "source",
            Level::Failed,
            "since the daemon started 5s ago: Services, for 0s: refused",
        ),
        (Facts { tables: vec![fill(95)], ..well.clone() }, &[], none(), "room", Level::Warning, "95 of 100"),
        (
            Facts { rejected: vec!["Service a/b: full".into()], ..well.clone() },
            &[],
            none(),
            "room",
            Level::Failed,
            "a/b",
        ),
        (
            Facts { misnamed: Some("member3".into()), ..well.clone() },
            &[],
            none(),
            "cluster name",
            Level::Failed,
            "member3",
        ),
        (
            Facts { sockets: SocketFacts::Failed("no cgroup2".into()), ..well.clone() },
            &[],
            none(),
            "sockets",
            Level::Warning,
            "no cgroup2",
        ),
        (
            Facts {
                sockets: SocketFacts::Delayed { why: "no memory".into(), meanwhile: "the last one's go on" },
                ..well.clone()
            },
            &[],
            none(),
            "sockets",
            Level::Warning,
            "no memory; it is tried again, and until then the last one's go on",
        ),
        (
            Facts {
                interfaces: InterfaceFacts {
                    refused: BTreeMap::from([(7, "veth7".into())]),
                    ..InterfaceFacts::default()
                },
                ..well.clone()
            },
            &[],
            none(),
            "interfaces",
            Level::Failed,
            "veth7",
        ),
        (
            Facts { failing_since: Some(Instant::now()), ..well.clone() },
            &[],
            none(),
            "transactions",
            Level::Warning,
            "refused",
        ),
        (well.clone(), &[], None, "drift", Level::Warning, "not compared"),
        (well.clone(), &[], Some(Drift { stray: 1, ..Drift::default() }), "drift", Level::Failed, "1 stray"),
    ] {
        let status = told(&facts, troubles, drift);
        let troubled: Vec<&Line> = status.lines.iter().filter(|line| line.level != Level::Ok).collect();
        if part.is_empty() {
            assert_eq!(troubled, Vec::<&Line>::new());
            continue;
        }
        let [line] = troubled[..] else { panic!("{part}: {troubled:?}") };
        assert_eq!((line.part.as_str(), line.level), (part, level), "{line:?}");
        assert!(line.says.contains(says) && line.way_out.is_some(), "{line:?}");
    }
}

#[test]
fn a_status_survives_the_socket() {
    let facts = Facts { problems: 2, ..Facts::default() };
    let status = told(&facts, &[(ObjectKind::Service, "no answer")], None);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
}
