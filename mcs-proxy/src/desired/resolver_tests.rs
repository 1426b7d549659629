use super::*;
use crate::{
    desired::testing::flags,
    model::{
        EndpointSlice, ObjectKind, OptIn, ProblemChanges, Service, ServicePort, Tiers,
        testing::{cases, endpoint, key, service, slice},
    },
    source::{Event, Object},
};
use mcs_proxy_ebpf::abi::Protocol;
use proptest::prelude::*;

/// A model and what follows from it.
struct Core {
    model: Model,
    resolver: Resolver,
}

impl Core {
    fn new() -> Self {
        Self { model: Model::default(), resolver: Resolver::new(flags()) }
    }

    fn apply(&mut self, event: Event) -> Changes {
        let affected = self.model.apply(event);
        self.resolver.update(&self.model, &affected, Instant::now())
    }

    fn put(&mut self, service: Service) -> Changes {
        self.apply(Event::Applied(Object::Service(service)))
    }

    fn put_slice(&mut self, slice: EndpointSlice) -> Changes {
        self.apply(Event::Applied(Object::EndpointSlice(slice)))
    }

    /// What came and went of problems with the Services themselves.
    fn news(&mut self) -> [Vec<String>; 2] {
        let [ProblemChanges { came, went }, _] = self.resolver.take_problem_changes();
        [came, went].map(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn owners(&self) -> Vec<String> {
        self.resolver
            .desired()
            .iter()
            .map(|(key, frontend)| format!("{key} {}", frontend.service.name))
            .collect()
    }

    fn losers(&self) -> Vec<String> {
        self.resolver.problems().map(|problem| problem.object.name.to_string()).collect()
    }
}

fn vip(text: &str) -> FrontendKey {
    FrontendKey { vip: text.parse().unwrap(), port: 80, protocol: Protocol::Tcp }
}

#[test]
fn a_cluster_that_nobody_knows_is_told_of_once_and_solved_when_it_comes_with_anybodys_slice() {
    let mut core = Core::new();
    for kind in [ObjectKind::Service, ObjectKind::EndpointSlice] {
        core.apply(Event::Replaced(kind, Vec::new()));
    }
    let clusters = Some(Tiers::parse("membr1,others").unwrap());
    core.put(Service { clusters, ..service("serve", "10.13.0.1") });
    let [came, went] = core.news();
    assert!(came.len() == 1 && came[0].contains("no cluster called `membr1` is known"), "{came:?}");
    assert_eq!(went, Vec::<String>::new());
    let own = |addresses: &[&str]| slice("a", "serve", "local", addresses);
    for addresses in [&["10.12.0.6"][..], &["10.12.0.6", "10.12.0.7"], &[]] {
        core.put_slice(own(addresses));
        assert_eq!(core.news(), [Vec::<String>::new(), Vec::new()], "{addresses:?}");
    }
    // Of another Service.
    core.put_slice(slice("b", "other", "membr1", &["10.10.0.6"]));
    assert_eq!(core.news(), [Vec::new(), came.clone()]);
    core.apply(Event::Deleted(ObjectKind::EndpointSlice, key("b")));
    assert_eq!(core.news(), [came, Vec::new()]);
}

#[test]
fn a_change_yields_what_differs_and_no_more() {
    let mut core = Core::new();
    core.put(service("other", "10.13.0.9"));
    let changes = core.put(service("serve", "10.13.0.1"));
    assert_eq!(changes.upserts.keys().copied().collect::<Vec<_>>(), [vip("10.13.0.1")]);
    let changes = core.put_slice(slice("a", "serve", "member1", &["10.10.0.6"]));
    assert_eq!(changes.upserts[&vip("10.13.0.1")].slots[..], ["10.10.0.6:8080".parse().unwrap()]);

    let mut placeholder = slice("b", "serve", "member3", &[]);
    placeholder.ports = [].into();
    assert!(core.put_slice(placeholder).is_empty(), "a placeholder of Karmada's changes nothing");
    assert!(core.put_slice(slice("c", "nobody", "local", &["10.12.0.1"])).is_empty());

    let changes = core.put(service("serve", "10.13.0.2"));
    assert_eq!(changes.upserts.keys().copied().collect::<Vec<_>>(), [vip("10.13.0.2")]);
    assert_eq!(changes.removals, [vip("10.13.0.1")].into());
    let changes = core.put(Service { opt_in: OptIn::Unsaid, ..service("serve", "10.13.0.2") });
    assert_eq!((changes.upserts.len(), changes.removals), (0, [vip("10.13.0.2")].into()));
    assert_eq!(core.owners(), ["TCP 10.13.0.9:80 other"]);
}

#[test]
fn of_two_services_with_one_address_the_older_has_it_until_it_goes() {
    let mut core = Core::new();
    core.put(Service { created: 20, ..service("young", "10.13.0.1") });
    assert_eq!(core.losers(), <[&str; 0]>::default());
    let changes = core.put(Service { created: 10, ..service("old", "10.13.0.1") });
    assert_eq!(changes.upserts[&vip("10.13.0.1")].service, key("old"));
    assert_eq!((core.owners(), core.losers()), (vec!["TCP 10.13.0.1:80 old".into()], vec!["young".into()]));
    let said = core.resolver.problems().next().unwrap().to_string();
    assert!(said.contains("Service default/young") && said.contains("default/old"), "{said}");

    assert!(core.put_slice(slice("a", "young", "local", &["10.12.0.1"])).is_empty(), "the loser has no say");
    core.put(Service { created: 10, ..service("also-old", "10.13.0.1") });
    assert_eq!(core.owners(), ["TCP 10.13.0.1:80 also-old"], "of one age, the first by name");
    assert_eq!(core.losers(), ["old", "young"]);

    core.apply(Event::Deleted(ObjectKind::Service, key("also-old")));
    let changes = core.apply(Event::Deleted(ObjectKind::Service, key("old")));
    assert_eq!(
        changes.upserts[&vip("10.13.0.1")].slots[..],
        ["10.12.0.1:8080".parse().unwrap()],
        "up to date"
    );
    assert!(changes.removals.is_empty());
    assert_eq!((core.owners(), core.losers()), (vec!["TCP 10.13.0.1:80 young".into()], vec![]));
    core.apply(Event::Deleted(ObjectKind::Service, key("young")));
    assert!(core.resolver.desired().is_empty() && core.resolver.claims.is_empty());
}

fn any_service() -> impl Strategy<Value = Service> {
    let name = prop::sample::select(vec!["a", "b", "c", "d"]);
    let vips = prop::sample::subsequence(vec!["10.13.0.1", "10.13.0.2", "fd00:13::1"], 0..=2);
    let ports = prop::sample::subsequence(vec![80_u16, 81, 82], 0..=2);
    let opt_in =
        prop::sample::select(vec![OptIn::Annotation, OptIn::Annotation, OptIn::ProxyName, OptIn::Unsaid]);
    (name, vips, ports, opt_in, 0..3_i64).prop_map(|(name, vips, ports, opt_in, created)| Service {
        cluster_ips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports: ports
            .into_iter()
            .map(|port| ServicePort { name: "".into(), protocol: Protocol::Tcp, port })
            .collect(),
        opt_in,
        created,
        ..service(name, "10.13.0.1")
    })
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let name = prop::sample::select(vec!["s0", "s1", "s2", "s3", "s4"]);
    let owner = prop::sample::select(vec!["a", "b", "c", "d"]);
    let cluster = prop::sample::select(vec!["local", "member1", "member3"]);
    let conditions = prop::sample::select(vec!["ready", "terminating", "dying", "down"]);
    let addresses =
        prop::sample::select(vec!["10.10.0.1", "10.10.0.2", "10.10.0.3", "fd00:10::1", "127.0.0.1"]);
    let endpoints = prop::collection::vec((addresses, conditions), 0..3);
    (name, owner, cluster, endpoints).prop_map(|(name, owner, cluster, endpoints)| EndpointSlice {
        endpoints: endpoints.into_iter().map(|(address, condition)| endpoint(address, condition)).collect(),
        ..slice(name, owner, cluster, &[])
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let object = prop_oneof![
        any_service().prop_map(Object::Service),
        any_slice().prop_map(Object::EndpointSlice),
        any_slice().prop_map(Object::EndpointSlice),
    ];
    let list = |kind, object: BoxedStrategy<Object>| {
        prop::collection::vec(object, 0..5).prop_map(move |objects| Event::Replaced(kind, objects))
    };
    prop_oneof![
        6 => object.clone().prop_map(Event::Applied),
        3 => object.prop_map(|object| Event::Deleted(object.kind(), object.key().clone())),
        1 => list(ObjectKind::Service, any_service().prop_map(Object::Service).boxed()),
        1 => list(ObjectKind::EndpointSlice, any_slice().prop_map(Object::EndpointSlice).boxed()),
    ]
}

/// The objects that a sequence of events leaves behind.
fn outcome(model: &Model) -> Vec<Event> {
    let services = model.services().cloned().map(Object::Service);
    let owners = ["a", "b", "c", "d"].map(key);
    let slices = owners.iter().flat_map(|owner| model.slices_of(owner)).cloned().map(Object::EndpointSlice);
    services.chain(slices).map(Event::Applied).collect()
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn the_way_to_a_state_leaves_no_trace(
        events in prop::collection::vec(any_event(), 0..40),
        order in prop::collection::vec(any::<u32>(), 40),
    ) {
        let mut core = Core::new();
        let mut maps = Desired::new();
        for event in events {
            let changes = core.apply(event);
            for key in &changes.removals {
                prop_assert!(maps.remove(key).is_some(), "removed {key}, which was not there");
                prop_assert!(!changes.upserts.contains_key(key));
            }
            for (key, frontend) in changes.upserts {
                let former = maps.insert(key, frontend.clone());
                prop_assert_ne!(former, Some(frontend), "told of {} without a change", key);
            }
            prop_assert_eq!(&maps, core.resolver.desired());
        }

        let mut objects: Vec<_> = outcome(&core.model).into_iter().zip(order).collect();
        objects.sort_by_key(|(_, order)| *order);
        let mut anew = Core::new();
        for (event, _) in objects {
            anew.apply(event);
        }
        prop_assert_eq!(anew.resolver.desired(), core.resolver.desired());
        prop_assert!(anew.resolver.problems().eq(core.resolver.problems()));
    }
}
