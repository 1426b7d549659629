use super::*;
use crate::{
    dataplane::{fake::FakeDataplane, service_key},
    desired::FrontendKey,
    model::ObjectKind,
    source::{Object, decode},
};
use mcs_proxy_ebpf::abi::{Algorithm, Direction, MapSizes, Protocol};
use serde_json::json;
use std::time::Duration;

const SIZES: MapSizes = MapSizes { frontends: 8, elements: 32, backend_ids: 16, ..MapSizes::DEFAULT };

fn writer(dataplane: FakeDataplane) -> Writer<FakeDataplane> {
    writer_reserving(dataplane, &[])
}

fn writer_reserving(dataplane: FakeDataplane, reserved: &[Address]) -> Writer<FakeDataplane> {
    let flags = Flags {
        cluster_name: "member2".into(),
        node_name: "member2-node-1".into(),
        default_algorithm: Algorithm::RoundRobin,
        all_services: false,
        tier_hold: Duration::ZERO,
        eject_unanswered: false,
    };
    Writer::new(dataplane, Model::default(), flags, reserved).unwrap()
}

fn service(name: &str, vip: &str) -> Object {
    let manifest = json!({
        "metadata": {"name": name, "namespace": "default", "annotations": {"mcs-proxy.io/enabled": "true"}},
        "spec": {"clusterIP": vip, "clusterIPs": [vip], "ports": [{"port": 80}]},
    });
    Object::Service(decode::service(&serde_json::from_value(manifest).unwrap()))
}

fn slice(service: &str, addresses: &[&str]) -> Object {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    let manifest = json!({
        "metadata": {"name": format!("{service}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints,
    });
    Object::EndpointSlice(decode::slice(&serde_json::from_value(manifest).unwrap(), "member2").unwrap())
}

/// What the maps lead the story's frontend to.
fn backends(writer: &Writer<FakeDataplane>, vip: &str) -> Option<Vec<String>> {
    let key = FrontendKey { vip: vip.parse().unwrap(), port: 80, protocol: Protocol::Tcp };
    let view = writer.dataplane.lookup(&service_key(&key)).unwrap()?;
    Some(view.slots.iter().map(|slot| slot.address.to_ip().to_string()).collect())
}

#[track_caller]
fn assert_programmed(writer: &mut Writer<FakeDataplane>) {
    let commit = writer.commit(Instant::now());
    assert!(matches!(commit, Commit::Programmed(_)), "{commit:?}");
}

fn synced(objects: [(ObjectKind, Vec<Object>); 2]) -> Writer<FakeDataplane> {
    let mut writer = writer(FakeDataplane::new(&SIZES));
    for (kind, objects) in objects {
        writer.take(Event::Replaced(kind, objects), Instant::now());
    }
    assert_programmed(&mut writer);
    writer
}

fn one_service() -> [(ObjectKind, Vec<Object>); 2] {
    [
        (ObjectKind::Service, vec![service("serve", "10.13.181.116")]),
        (ObjectKind::EndpointSlice, vec![slice("serve", &["10.10.0.6"])]),
    ]
}

fn story() -> Writer<FakeDataplane> {
    synced(one_service())
}

#[test]
fn the_maps_follow_the_events() {
    let mut writer = story();
    assert_eq!(backends(&writer, "10.13.181.116").unwrap(), ["10.10.0.6"]);
    writer.take(Event::Applied(slice("serve", &["10.10.0.6", "10.12.0.6"])), Instant::now());
    assert_programmed(&mut writer);
    assert_eq!(backends(&writer, "10.13.181.116").unwrap().len(), 2);
    writer.take(Event::Deleted(ObjectKind::Service, NamespacedName::new("default", "serve")), Instant::now());
    assert_programmed(&mut writer);
    assert_eq!(backends(&writer, "10.13.181.116"), None);
    assert_eq!(writer.commit(Instant::now()), Commit::Idle);
}

#[test]
fn what_the_maps_hold_from_before_stays_until_every_source_has_synced() {
    let before = story().dataplane;
    let mut writer = writer(before);
    writer
        .take(Event::Replaced(ObjectKind::Service, vec![service("serve", "10.13.181.116")]), Instant::now());
    assert_eq!(writer.commit(Instant::now()), Commit::Idle);
    assert_eq!(backends(&writer, "10.13.181.116").unwrap(), ["10.10.0.6"]);
    writer.take(
        Event::Replaced(ObjectKind::EndpointSlice, vec![slice("serve", &["10.10.0.6"])]),
        Instant::now(),
    );
    assert_programmed(&mut writer);
    assert_eq!(backends(&writer, "10.13.181.116").unwrap(), ["10.10.0.6"]);
}

#[test]
fn what_is_gone_at_a_restart_is_swept_once_every_source_has_synced() {
    let mut writer = writer(story().dataplane);
    writer.take(Event::Replaced(ObjectKind::Service, vec![service("other", "10.13.0.9")]), Instant::now());
    writer.take(
        Event::Replaced(ObjectKind::EndpointSlice, vec![slice("other", &["10.10.0.7"])]),
        Instant::now(),
    );
    assert_programmed(&mut writer);
    assert_eq!(backends(&writer, "10.13.181.116"), None);
    assert_eq!(backends(&writer, "10.13.0.9").unwrap(), ["10.10.0.7"]);
}

#[test]
fn a_refusal_at_any_step_leaves_the_maps_consistent_and_is_made_good() {
    for step in 0.. {
        let mut writer = story();
        writer.dataplane.fail_at(step);
        writer.take(Event::Applied(service("other", "10.13.0.9")), Instant::now());
        writer.take(Event::Applied(slice("other", &["10.10.0.7"])), Instant::now());
        writer.take(Event::Applied(slice("serve", &["10.12.0.6"])), Instant::now());
        let commit = writer.commit(Instant::now());
        let seen = backends(&writer, "10.13.181.116").unwrap();
        assert!(seen == ["10.10.0.6"] || seen == ["10.12.0.6"], "step {step}: {seen:?}");
        if matches!(commit, Commit::Programmed(_)) {
            assert!(step > 0);
            return;
        }
        assert_eq!(commit, Commit::Failed);
        assert!(writer.needs_retry());
        assert_programmed(&mut writer);
        assert_eq!(backends(&writer, "10.13.181.116").unwrap(), ["10.12.0.6"]);
        assert_eq!(backends(&writer, "10.13.0.9").unwrap(), ["10.10.0.7"]);
    }
}

/// What the table has planned is not what the maps hold then.
#[test]
fn a_refusal_after_which_the_maps_cannot_be_read_is_made_good_once_they_can() {
    for step in 0.. {
        let mut writer = story();
        writer.dataplane.fail_at(step);
        writer.dataplane.fail_dumps(2);
        writer.take(Event::Applied(service("other", "10.13.0.9")), Instant::now());
        writer.take(Event::Applied(slice("other", &["10.10.0.7"])), Instant::now());
        writer.take(
            Event::Deleted(ObjectKind::Service, NamespacedName::new("default", "serve")),
            Instant::now(),
        );
        let commit = writer.commit(Instant::now());
        if matches!(commit, Commit::Programmed(_)) {
            assert!(step > 0);
            return;
        }
        let done = writer.dataplane.done();
        assert_eq!(commit, Commit::Failed);
        assert_eq!(writer.commit(Instant::now()), Commit::Failed, "step {step}");
        assert!(writer.needs_retry());
        assert_eq!(writer.wants_grace(), None, "nobody knows what was let go of");
        writer.carry_out(&[Operation::GracePeriodOver]);
        assert_eq!(writer.dataplane.done(), done, "step {step}: written without knowing what is there");
        assert_programmed(&mut writer);
        assert_eq!(backends(&writer, "10.13.181.116"), None, "step {step}");
        assert_eq!(backends(&writer, "10.13.0.9").unwrap(), ["10.10.0.7"], "step {step}");
        assert!(!writer.needs_retry());
    }
}

#[test]
fn the_first_commit_that_succeeds_is_told_as_the_first_whatever_was_refused_before() {
    for unreadable in [0, 2] {
        let mut writer = writer(FakeDataplane::new(&SIZES));
        writer.dataplane.fail_at(0);
        writer.dataplane.fail_dumps(unreadable);
        for (kind, objects) in one_service() {
            writer.take(Event::Replaced(kind, objects), Instant::now());
        }
        assert_eq!(writer.commit(Instant::now()), Commit::Failed);
        let is_first = loop {
            match writer.commit(Instant::now()) {
                Commit::Failed => assert!(writer.needs_retry()),
                Commit::Programmed(summary) => break summary.first,
                Commit::Idle => panic!("{unreadable}: nothing to do"),
            }
        };
        assert!(is_first, "{unreadable}");
        writer.take(Event::Applied(slice("serve", &["10.10.0.7"])), Instant::now());
        let Commit::Programmed(summary) = writer.commit(Instant::now()) else { panic!("{unreadable}") };
        assert!(!summary.first, "{unreadable}");
    }
}

/// Whose bit is cleared, its answers are not looked at.
#[test]
fn reserved_addresses_stay_looked_at_after_a_refusal() {
    let reserved = Address::from("10.13.255.1".parse::<IpAddr>().unwrap());
    let mut writer = writer_reserving(FakeDataplane::new(&SIZES), &[reserved]);
    for (kind, objects) in one_service() {
        writer.take(Event::Replaced(kind, objects), Instant::now());
    }
    assert_programmed(&mut writer);
    assert!(writer.dataplane.is_hot(Direction::FromPod, &reserved));
    writer.dataplane.fail_at(0);
    writer.take(Event::Applied(slice("serve", &["10.10.0.7"])), Instant::now());
    assert_eq!(writer.commit(Instant::now()), Commit::Failed);
    assert_programmed(&mut writer);
    // As when all flows have been looked through.
    let begun = writer.wants_grace().unwrap();
    assert!(writer.reclaim(begun));
    let mark = writer.table().linger_mark();
    let transaction = writer.table().release_hot(&mark, &BTreeSet::new());
    writer.carry_out(&transaction);
    assert!(writer.dataplane.is_hot(Direction::FromPod, &reserved));
}

#[test]
fn a_refusal_at_an_idle_moment_is_known_to_need_another_try() {
    let mut writer = story();
    writer.take(Event::Deleted(ObjectKind::Service, NamespacedName::new("default", "serve")), Instant::now());
    assert_programmed(&mut writer);
    writer.dataplane.fail_at(0);
    let begun = writer.wants_grace().unwrap();
    assert!(writer.reclaim(begun));
    assert!(writer.needs_retry());
    assert_programmed(&mut writer);
    assert!(!writer.needs_retry());
}

/// What was let go of meanwhile may be in use by programs that began before it.
#[test]
fn a_grace_period_is_good_for_what_was_let_go_of_before_it_and_nothing_else() {
    let mut writer = story();
    let delete = |name: &str| Event::Deleted(ObjectKind::Service, NamespacedName::new("default", name));
    writer.take(delete("serve"), Instant::now());
    assert_programmed(&mut writer);
    let early = writer.wants_grace().unwrap();
    writer.take(Event::Applied(service("other", "10.13.0.77")), Instant::now());
    assert_programmed(&mut writer);
    assert!(!writer.reclaim(early));
    let begun = writer.wants_grace().unwrap();
    assert!(writer.reclaim(begun));
    assert_eq!(writer.wants_grace(), None);
    assert!(!writer.reclaim(begun), "a grace period is good once");
}

#[test]
fn what_does_not_fit_leaves_the_others_alone_and_enters_once_there_is_room() {
    let many: Vec<Object> =
        (0..9).map(|i| service(&format!("s{i}"), &format!("10.13.0.{}", i + 1))).collect();
    let mut writer = synced([(ObjectKind::Service, many), (ObjectKind::EndpointSlice, vec![])]);
    let in_maps = |writer: &Writer<FakeDataplane>| {
        (1..=9).filter(|i| backends(writer, &format!("10.13.0.{i}")).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(in_maps(&writer), (1..=8).collect::<Vec<_>>());
    writer.take(Event::Deleted(ObjectKind::Service, NamespacedName::new("default", "s0")), Instant::now());
    assert_programmed(&mut writer);
    // Room is only there after the grace period of what left, which the next change waits for.
    writer.take(Event::Applied(slice("s1", &["10.10.0.7"])), Instant::now());
    assert_programmed(&mut writer);
    assert_eq!(in_maps(&writer), (2..=9).collect::<Vec<_>>());
}

/// However many Services there are, and whatever is wrong with others of them.
#[test]
fn a_change_of_one_service_costs_what_one_service_costs() {
    const MANY: MapSizes =
        MapSizes { frontends: 1024, elements: 8192, backend_ids: 8192, ..MapSizes::DEFAULT };
    let mut costs = Vec::new();
    for count in [2, 600] {
        let mut writer = writer(FakeDataplane::new(&MANY));
        let names: Vec<String> = (0..count).map(|i| format!("s{i}")).collect();
        let vip = |i: usize| format!("10.13.{}.{}", i / 250, 1 + i % 250);
        let services = names.iter().enumerate().map(|(i, name)| service(name, &vip(i))).collect();
        // A rejected endpoint each: a problem.
        let backed = |name: &String| slice(name, &["10.10.0.6", "10.10.0.7", "169.254.169.254"]);
        writer.take(Event::Replaced(ObjectKind::Service, services), Instant::now());
        writer.take(
            Event::Replaced(ObjectKind::EndpointSlice, names.iter().map(backed).collect()),
            Instant::now(),
        );
        assert_programmed(&mut writer);
        assert_eq!(writer.resolver.computed(), count, "each once");
        assert_eq!(writer.tracker.count(), count);
        while writer.owes_names() {
            writer.names(64);
        }
        let (computed, done) = (writer.resolver.computed(), writer.dataplane.done());
        writer.take(
            Event::Applied(slice("s1", &["10.10.0.6", "10.10.0.8", "169.254.169.254"])),
            Instant::now(),
        );
        assert!(writer.model.take_problem_changes().iter().all(|changes| changes.came.is_empty()));
        assert_programmed(&mut writer);
        let lines = String::from_utf8(writer.names(64).unwrap().text).unwrap().lines().count();
        costs.push((writer.resolver.computed() - computed, writer.dataplane.done() - done, lines));
        assert!(!writer.owes_names());
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!((costs[0].0, costs[0].2), (1, 1), "one Service decided about, one line written");
}
