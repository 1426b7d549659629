use crate::{
    desired::{
        Flags,
        testing::{decided_with, flags, verdicts, verdicts_by},
    },
    model::{
        ClusterSettings, EndpointSlice, Hints, Place, Service, Settings, Tiers, TrafficPolicy, Zones,
        testing::{endpoint, service, slice},
    },
};
use std::sync::Arc;

/// Endpoints `10.12.0.1`, `.2` … by condition, nodes and zones that they are hinted for (`""`: none).
fn hinted(cluster: &str, endpoints: &[(&str, &str, &str)]) -> EndpointSlice {
    let mut hinted = slice(&format!("{cluster}-slice"), "serve", cluster, &[]);
    let net = match cluster {
        "local" => "10.12.0",
        "member1" => "10.10.0",
        _ => "10.14.0",
    };
    for ((condition, nodes, zones), i) in endpoints.iter().zip(1..) {
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut endpoint = endpoint(&format!("{net}.{i}"), condition);
        let hints = Hints { for_nodes: list(nodes), for_zones: list(zones) };
        endpoint.place = Some(Arc::new(Place {
            // Names that are ours, too, but of an import they name another cluster's things.
            node_name: Some("node-1".into()),
            zone: Some("a".into()),
            hints: (hints != Hints::default()).then_some(hints),
        }));
        hinted.endpoints.push(endpoint);
    }
    hinted
}

fn told(service: &Service, slices: &[EndpointSlice]) -> String {
    told_of(&verdicts(service, slices))
}

fn told_of(verdicts: &[String]) -> String {
    let verdict = |line: &String| line.rsplit_once(": ").map(|(_, verdict)| verdict.to_owned());
    verdicts.iter().filter_map(verdict).collect::<Vec<_>>().join("; ")
}

/// Rows: this cluster's endpoints, and their verdicts on node-1 in zone a. As kube-proxy's TestCategorizeEndpoints.
#[test]
fn hints_for_nodes_then_for_zones_and_only_if_every_ready_endpoint_has_them_and_one_is_for_us() {
    type Row<'a> = (&'a [(&'a str, &'a str, &'a str)], &'a str);
    let rows: &[Row<'_>] = &[
        (&[("ready", "", "a"), ("ready", "", "b")], "used; other zone"),
        (&[("ready", "", "a b"), ("ready", "", "b")], "used; other zone"),
        (&[("ready", "", "b"), ("ready", "", "c")], "used; used"),
        (&[("ready", "", "a"), ("ready", "", "")], "used; used"),
        (&[("ready", "node-1", "a"), ("ready", "node-2", "a")], "used; other node"),
        (&[("ready", "node-2", "a"), ("ready", "node-3", "b")], "used; other zone"),
        (&[("ready", "node-1", "a"), ("ready", "", "b")], "used; other zone"),
        (&[("ready", "node-1", ""), ("ready", "node-2", "")], "used; other node"),
        (&[("ready", "", "a"), ("down", "", "")], "used; not ready"),
        (&[("ready", "", "b"), ("down", "", "a")], "used; not ready"),
        (&[("ready", "", "a"), ("terminating", "", "")], "used; terminating"),
        (&[("terminating", "", "a"), ("terminating", "", "b")], "used (terminating); used (terminating)"),
        (&[("published", "", "a"), ("ready", "", "b")], "used; other zone"),
    ];
    for (endpoints, expected) in rows {
        let slices = [hinted("local", endpoints)];
        assert_eq!(told(&service("serve", "10.13.0.1"), &slices), *expected, "{endpoints:?}");
    }
}

#[test]
fn an_import_without_hints_leaves_ours_in_force_and_waits() {
    let imports = hinted("member1", &[("ready", "", ""), ("down", "", "")]);
    let ours = hinted("local", &[("ready", "", "a"), ("ready", "", "b")]);
    let serve = service("serve", "10.13.0.1");
    assert_eq!(told(&serve, &[ours, imports.clone()]), "used; other zone; local hints first; not ready");
    let none = hinted("local", &[("down", "", "a")]);
    assert_eq!(told(&serve, &[none, imports.clone()]), "not ready; used; not ready");
    let unhinted = hinted("local", &[("ready", "", "")]);
    assert_eq!(told(&serve, &[unhinted, imports]), "used; used; not ready");
}

#[test]
fn node_zone_and_hints_of_an_import_mean_nothing_here() {
    let serve = service("serve", "10.13.0.1");
    let imports = hinted("member1", &[("ready", "node-1", "a"), ("ready", "node-2", "b")]);
    assert_eq!(told(&serve, std::slice::from_ref(&imports)), "used; used");
    let ours = hinted("local", &[("ready", "", "b")]);
    assert_eq!(told(&serve, &[ours, imports.clone()]), "used; used; used", "nor do they help our own");
    let local = Service { internal_traffic_policy: TrafficPolicy::Local, ..serve };
    assert_eq!(told(&local, &[imports]), "other node; other node");
}

#[test]
fn with_tiers_hints_choose_within_a_cluster_and_tiers_among_them() {
    let ours = hinted("local", &[("ready", "", "a"), ("ready", "", "b")]);
    let imports = hinted("member1", &[("ready", "", "")]);
    let with = |clusters: &str| Service {
        clusters: Some(Tiers::parse(clusters).unwrap()),
        ..service("serve", "10.13.0.1")
    };
    let slices = [ours, imports];
    assert_eq!(told(&with("local+member1"), &slices), "used; other zone; used");
    assert_eq!(told(&with("local,member1"), &slices), "used; other zone; other tier");
    assert_eq!(told(&with("member1,local"), &slices), "other tier; other tier; used");
}

#[test]
fn zones_are_compared_with_a_cluster_that_shares_them() {
    let cluster = ClusterSettings { zones: Zones::Shared, ..ClusterSettings::default() };
    let shared = Settings { clusters: [("member1".to_owned(), cluster)].into(), ..Settings::default() };
    let ours = hinted("local", &[("ready", "", "a"), ("ready", "", "b")]);
    let theirs = hinted("member1", &[("ready", "", "a"), ("ready", "", "b")]);
    let others = hinted("member3", &[("ready", "", "a")]);
    let unhinted = hinted("member1", &[("ready", "", "")]);
    let for_nodes = hinted("local", &[("ready", "node-1", "a"), ("ready", "node-2", "a")]);
    let serve = service("serve", "10.13.0.1");
    let told = |slices: &[_], settings: &_| told_of(&verdicts_by(&serve, slices, settings));
    let all = [ours.clone(), theirs.clone(), others];
    assert_eq!(
        told(&all, &Settings::default()),
        "used; other zone; local hints first; local hints first; local hints first"
    );
    assert_eq!(told(&all, &shared), "used; other zone; used; other zone; local hints first");
    assert_eq!(told(&[ours, unhinted], &shared), "used; other zone; local hints first");
    let no_hints = hinted("local", &[("ready", "", "")]);
    assert_eq!(told(&[no_hints, theirs.clone()], &shared), "used; used; other zone");
    assert_eq!(told(&[for_nodes, theirs], &shared), "used; other node; local hints first; local hints first");
}

/// KEP-2086: no endpoint here is no endpoint at all. Tiers have no say.
#[test]
fn internal_traffic_policy_local_keeps_to_this_nodes_own_pods() {
    let mut ours = hinted("local", &[("ready", "", "b"), ("ready", "", "a"), ("terminating", "", "")]);
    ours.endpoints[1].place = Some(Arc::new(Place { node_name: Some("node-2".into()), ..Place::default() }));
    let local = Service {
        internal_traffic_policy: TrafficPolicy::Local,
        clusters: Some(Tiers::parse("member1,local").unwrap()),
        ..service("serve", "10.13.0.1")
    };
    let imports = hinted("member1", &[("ready", "", "")]);
    assert_eq!(told(&local, &[ours.clone(), imports.clone()]), "used; other node; terminating; other node");
    ours.endpoints.remove(0);
    assert_eq!(told(&local, &[ours.clone(), imports.clone()]), "other node; used (terminating); other node");
    ours.endpoints[1].place = None;
    assert_eq!(told(&local, &[ours, imports]), "other node; other node; other node");
}

#[test]
fn a_local_service_on_a_node_without_a_name_says_what_is_missing() {
    let local = Service { internal_traffic_policy: TrafficPolicy::Local, ..service("serve", "10.13.0.1") };
    let slices = [hinted("local", &[("ready", "", "")]), hinted("member1", &[("ready", "", "")])];
    let unnamed = Flags { node_name: String::new(), ..flags() };
    let (standings, now) = (std::collections::BTreeMap::new(), std::time::Instant::now());
    let decision = decided_with(&local, &slices, &unnamed, &standings, now);
    let told = crate::desired::testing::told(&decision);
    assert_eq!(told_of(&told), "this node unnamed; other node");
    let [problem] = decision.problems.as_slice() else { panic!("{:?}", decision.problems) };
    let said = problem.to_string();
    assert!(said.starts_with("Service default/serve: spec.internalTrafficPolicy:"), "{said}");
    assert!(said.contains("no --node-name says which one it is"), "{said}");
    let named = decided_with(&local, &slices, &flags(), &standings, now);
    assert_eq!(named.problems, []);
    let everywhere = service("serve", "10.13.0.1");
    assert_eq!(decided_with(&everywhere, &slices, &unnamed, &standings, now).problems, []);
}
