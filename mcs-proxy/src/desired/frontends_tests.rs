use super::*;
use crate::desired::testing::{decided, decided_with, flags, verdicts};
use crate::model::{
    Endpoint, OptIn, SessionAffinity, SlicePort,
    testing::{cases, endpoint, key, service, slice},
};
use mcs_proxy_ebpf::abi::Protocol;
use proptest::prelude::*;
use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

fn of(service: &Service, slices: &[EndpointSlice]) -> (Vec<(FrontendKey, Frontend)>, Vec<Problem>) {
    let Decision { frontends, problems } = decided(service, slices);
    (frontends.into_iter().map(|(key, decided)| (key, decided.frontend)).collect(), problems)
}

#[test]
fn a_service_over_three_clusters_is_one_wheel_with_the_local_endpoints_first() {
    let mut member3 = slice("member3-serve", "serve", "member3", &["10.14.0.6", "10.14.0.5"]);
    member3.endpoints.push(endpoint("10.14.0.7", "terminating"));
    let slices = [
        slice("member1-serve", "serve", "member1", &["10.10.0.6"]),
        member3,
        slice("serve-mvgj7", "serve", "local", &["10.12.0.6"]),
    ];
    let (frontends, problems) = of(&service("serve", "10.13.181.116"), &slices);
    assert_eq!(problems, []);
    let [(key, frontend)] = &frontends[..] else { panic!("{frontends:?}") };
    assert_eq!(key.to_string(), "TCP 10.13.181.116:80");
    let addresses = |list: &[SocketAddr]| list.iter().map(SocketAddr::to_string).collect::<Vec<_>>();
    assert_eq!(
        addresses(&frontend.slots),
        ["10.14.0.5:8080", "10.12.0.6:8080", "10.10.0.6:8080", "10.14.0.6:8080"]
    );
    assert_eq!(addresses(&frontend.serving), ["10.14.0.7:8080"]);
    assert_eq!(
        verdicts(&service("serve", "10.13.181.116"), &slices),
        [
            "local 10.12.0.6: used",
            "member1 10.10.0.6: used",
            "member3 10.14.0.5: used",
            "member3 10.14.0.6: used",
            "member3 10.14.0.7: terminating",
        ]
    );
}

#[test]
fn every_port_on_every_address_is_a_frontend() {
    let mut dual = service("serve", "10.13.0.1");
    dual.cluster_ips.push("fd00:10:13::1".parse().unwrap());
    dual.ports = [("web", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53), ("dns-tcp", Protocol::Tcp, 53)]
        .map(|(name, protocol, port)| ServicePort { name: name.into(), protocol, port })
        .into();
    dual.algorithm = Some(Algorithm::Random);
    let (frontends, problems) = of(&dual, &[]);
    assert_eq!((frontends.len(), problems), (6, vec![]));
    assert!(frontends.iter().all(|(_, frontend)| frontend.slots.is_empty()));
    assert!(frontends.iter().all(|(_, frontend)| frontend.algorithm == Algorithm::Random));
    assert!(frontends.is_sorted_by_key(|(key, _)| *key));
}

#[test]
fn affinity_is_every_frontends_with_its_timeout() {
    let mut affine = service("serve", "10.13.0.1");
    let seconds = |service: &Service| of(service, &[]).0.remove(0).1.affinity_seconds;
    assert_eq!(seconds(&affine), 0);
    affine.session_affinity = SessionAffinity::ClientIp { timeout_seconds: 10 };
    assert_eq!(seconds(&affine), 10);
    assert_eq!(of(&affine, &[]).1, []);
}

#[test]
fn maglevs_slots_are_its_table() {
    let mut hashed = service("serve", "10.13.0.1");
    hashed.algorithm = Some(Algorithm::Maglev);
    let slices = |names: [&str; 2]| names.map(|ip| slice(&format!("serve-{ip}"), "serve", "local", &[ip]));
    let slots = |slices: &[EndpointSlice]| of(&hashed, slices).0.remove(0).1.slots;
    let table = slots(&slices(["10.12.0.6", "10.12.0.7"]));
    assert_eq!(table.len(), 4093);
    assert_eq!(slots(&slices(["10.12.0.7", "10.12.0.6"])), table);
}

/// Rows: what the object says, its name; whether it is ours without and with `--all-services`.
#[test]
fn which_services_are_ours() {
    for (opt_in, name, expected) in [
        (OptIn::Annotation, "serve", [true, true]),
        (OptIn::ProxyName, "serve", [true, true]),
        (OptIn::Unsaid, "serve", [false, true]),
        (OptIn::Refused, "serve", [false, false]),
        (OptIn::OtherProxy, "serve", [false, false]),
        (OptIn::Annotation, "kubernetes", [true, true]),
        (OptIn::ProxyName, "kubernetes", [false, false]),
        (OptIn::Unsaid, "kubernetes", [false, false]),
    ] {
        let service = Service { opt_in, ..service(name, "10.13.0.1") };
        let ours = [false, true].map(|all| {
            let flags = Flags { all_services: all, ..flags() };
            !decided_with(&service, &[], &flags, &BTreeMap::new(), Instant::now()).frontends.is_empty()
        });
        assert_eq!(ours, expected, "{opt_in:?} {name}");
    }
    let elsewhere = Service {
        opt_in: OptIn::Unsaid,
        key: crate::model::NamespacedName::new("team", "kubernetes"),
        ..service("kubernetes", "10.13.0.1")
    };
    assert!(is_ours(&elsewhere, true));
}

/// Rows: what is changed on a sound Service; the field and a part of the text of the only problem; how many frontends.
#[test]
fn what_is_not_served_is_said() {
    type Change = fn(&mut Service);
    let labelled: Change = |service| {
        service.opt_in = OptIn::ProxyName;
        service.kube_proxy_beneath = false;
        service.externally_exposed = true;
    };
    let both: Change = |service| {
        service.kube_proxy_beneath = false;
        service.externally_exposed = true;
    };
    let refused: Change = |service| {
        service.opt_in = OptIn::Refused;
        service.kube_proxy_beneath = false;
    };
    let packets_only: Change = |service| {
        service.opt_in = OptIn::ProxyName;
        service.kube_proxy_beneath = false;
        service.socket_path = Some(false);
    };
    let headless: Change = |service| service.cluster_ips.clear();
    let twice: Change = |service| {
        let again = ServicePort { name: "again".into(), ..service.ports[0].clone() };
        service.ports.push(again);
    };
    let label = "metadata.labels[service.kubernetes.io/service-proxy-name]";
    for (change, field, text, count) in [
        (labelled, label, "node ports", 1),
        (both, label, "node ports", 1),
        (refused, label, "nobody serves it", 0),
        (packets_only, "metadata.annotations[mcs-proxy.io/socket-path]", "reach nobody", 1),
        (headless, "spec.clusterIP", "there is none", 0),
        (twice, "spec.ports[1].port", "TCP 10.13.0.1:80 is there twice", 1),
    ] {
        let mut service = service("serve", "10.13.0.1");
        change(&mut service);
        let (frontends, problems) = of(&service, &[]);
        let [problem] = &problems[..] else { panic!("{field}: {problems:?}") };
        assert_eq!((problem.field.as_str(), frontends.len()), (field, count), "{problem}");
        assert!(problem.message.contains(text), "{problem}");
    }
    let mut others = service("serve", "10.13.0.1");
    others.opt_in = OptIn::OtherProxy;
    others.kube_proxy_beneath = false;
    assert_eq!(of(&others, &[]), (vec![], vec![]), "not ours to comment on");
}

#[test]
fn an_sctp_port_is_a_frontend_as_any_other() {
    let mut sctp = service("serve", "10.13.0.1");
    sctp.ports[0].protocol = Protocol::Sctp;
    let (frontends, problems) = of(&sctp, &[]);
    assert_eq!(problems, []);
    assert!(matches!(&frontends[..], [(FrontendKey { protocol: Protocol::Sctp, .. }, _)]), "{frontends:?}");
}

#[test]
fn a_slice_with_rejected_addresses_is_told_of_once() {
    let bad = slice("member1-serve", "serve", "member1", &["127.0.0.1", "169.254.169.254", "10.10.0.6"]);
    let mut two_ports = service("serve", "10.13.0.1");
    two_ports.cluster_ips.push("10.13.0.2".parse().unwrap());
    let (_, problems) = of(&two_ports, &[bad]);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(problem.object.to_string(), "EndpointSlice default/member1-serve");
    assert_eq!(problem.message, "127.0.0.1 is loopback, and 1 more are refused");
}

#[test]
fn an_import_that_claims_to_come_from_here_is_told_of() {
    let (frontends, problems) =
        of(&service("serve", "10.13.0.1"), &[slice("a", "serve", "member2", &["10.10.0.6"])]);
    assert_eq!(frontends[0].1.slots.len(), 1);
    assert!(problems[0].message.contains("--cluster-name is member2"), "{problems:?}");
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let addresses = vec!["10.10.0.1", "10.10.0.2", "10.10.0.3", "127.0.0.1", "fd00::1", "::ffff:10.0.0.1"];
    (prop::sample::select(addresses), any::<[bool; 3]>()).prop_map(
        |(address, [ready, serving, terminating])| Endpoint {
            ready,
            serving,
            terminating,
            ..endpoint(address, "ready")
        },
    )
}

fn any_slices() -> impl Strategy<Value = Vec<EndpointSlice>> {
    let port = (prop::sample::select(vec!["", "web"]), prop::sample::select(vec![0_u16, 8080, 9090]))
        .prop_map(|(name, port)| SlicePort { name: name.into(), protocol: Protocol::Tcp, port });
    let slice = (
        prop::sample::select(vec!["local", "member1", "member3"]),
        prop::collection::vec(port, 0..3),
        prop::collection::vec(any_endpoint(), 0..5),
    );
    prop::collection::vec(slice, 0..5).prop_map(|slices| {
        let named = slices.into_iter().enumerate();
        named
            .map(|(i, (cluster, ports, endpoints))| EndpointSlice {
                ports: ports.into(),
                endpoints,
                ..slice_named(&format!("slice-{i}"), cluster)
            })
            .collect()
    })
}

fn slice_named(name: &str, cluster: &str) -> EndpointSlice {
    slice(name, "serve", cluster, &[])
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn every_endpoint_has_one_verdict_and_the_slots_are_those_that_are_used(slices in any_slices()) {
        let mut dual = service("serve", "10.13.0.1");
        dual.cluster_ips.push("fd00:13::1".parse().unwrap());
        let (frontends, _) = of(&dual, &slices);
        prop_assert_eq!(frontends.len(), 2);
        let listed = slices.iter().flat_map(|slice| {
            let ports = slice.ports.iter().filter(|port| port.name.is_empty());
            ports.flat_map(|port| slice.endpoints.iter().map(|endpoint| SocketAddr::new(endpoint.address, port.port)))
        });
        let decision = decided(&dual, &slices);
        let judged = decision.frontends.iter().flat_map(|(_, decided)| &decided.candidates);
        let sorted = |mut addresses: Vec<SocketAddr>| { addresses.sort_unstable(); addresses };
        prop_assert_eq!(
            sorted(judged.clone().map(|endpoint| endpoint.address).collect()),
            sorted(listed.collect())
        );
        for (called, Decided { frontend, candidates: endpoints, .. }) in &decision.frontends {
            let Frontend { service, slots, serving, .. } = frontend;
            prop_assert_eq!(service, &key("serve"));
            let used: Vec<_> = endpoints
                .iter()
                .filter(|e| matches!(e.verdict, EndpointVerdict::Used | EndpointVerdict::UsedTerminating))
                .map(|e| e.address)
                .collect();
            prop_assert_eq!(sorted(slots.to_vec()), sorted(used));
            let unique: BTreeSet<_> = slots.iter().chain(serving).collect();
            prop_assert_eq!(unique.len(), slots.len() + serving.len(), "in slots or serving, and once");
            for address in slots.iter().chain(serving) {
                prop_assert!(crate::model::rejection(address.ip()).is_none() && address.port() != 0);
                prop_assert_eq!(address.is_ipv4(), called.vip.is_ipv4());
            }
            let all_of_one_kind = endpoints.iter().any(|e| e.verdict == EndpointVerdict::Used)
                != endpoints.iter().any(|e| e.verdict == EndpointVerdict::UsedTerminating);
            prop_assert!(slots.is_empty() || all_of_one_kind);
        }
    }
}
