use crate::{
    model::{
        EndpointSlice, Model, NamespacedName, Node, ObjectKind, OptIn, Service, ServiceImport, import_key,
        testing::{key, service, slice},
    },
    source::{Event, Object},
};
use mcs_proxy_ebpf::abi::Algorithm;

const RANGE: &str = "243.0.0.0/8";

fn import(name: &str, ips: &[&str], derived: &[&str]) -> ServiceImport {
    ServiceImport {
        key: key(name),
        service: Service {
            key: import_key(&key(name)),
            cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            kube_proxy_beneath: false,
            ..service(name, "243.0.0.1")
        },
        derived: derived.iter().map(|&name| name.to_owned()).collect(),
        problems: Vec::new(),
    }
}

fn unsaid(name: &str, vip: &str) -> Service {
    Service { opt_in: OptIn::Unsaid, ..service(name, vip) }
}

struct Core(Model);

impl Core {
    fn new() -> Self {
        Self(Model::default().with_import_ranges(vec![RANGE.parse().unwrap()]))
    }

    /// The names of what it affects.
    fn apply(&mut self, event: Event) -> Vec<String> {
        self.0.apply(event).into_iter().map(|key| key.name.to_string()).collect()
    }

    fn put(&mut self, object: Object) -> Vec<String> {
        self.apply(Event::Applied(object))
    }

    /// The addresses that an import has beside its derived Services.
    fn own(&self, name: &str) -> Vec<String> {
        let service = self.0.service(&import_key(&key(name)));
        service.into_iter().flat_map(|service| &service.cluster_ips).map(ToString::to_string).collect()
    }

    fn problems(&self) -> Vec<String> {
        self.0.problems().map(ToString::to_string).collect()
    }
}

#[test]
fn an_address_in_the_operators_range_is_the_imports_and_no_other_is() {
    let mut core = Core::new();
    let affected = core.put(Object::ServiceImport(import("serve", &["243.0.0.9", "8.8.8.8"], &[])));
    assert_eq!(affected, ["serviceimport/serve"]);
    assert_eq!(core.own("serve"), ["243.0.0.9"]);
    let problems = core.problems();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.starts_with("ServiceImport default/serve: spec.ips[1]: 8.8.8.8 is outside"), "{problem}");
    assert!(problem.contains("--serviceimport-cidrs"), "{problem}");

    assert_eq!(
        core.apply(Event::Deleted(ObjectKind::ServiceImport, key("serve"))),
        ["serviceimport/serve"],
        "it is gone, and so is what was wrong"
    );
    assert_eq!((core.own("serve"), core.problems()), (vec![], vec![]));
}

/// Rows: what has the address, and how it is called. The import comes first, then what has its address; and the other
/// way round; when that goes, the import has the address again.
#[test]
fn an_address_that_something_else_has_is_refused_while_that_lasts() {
    let vip = "243.0.0.9";
    let node = Node {
        key: NamespacedName::new("", "member2-node-1"),
        zone: None,
        addresses: vec![vip.parse().unwrap()],
        problems: Vec::new(),
    };
    for (other, said) in [
        (Object::Service(unsaid("victim", vip)), "ClusterIP of Service default/victim"),
        (Object::Node(node), "this node's address"),
        (
            Object::EndpointSlice(slice("pods", "victim", "local", &["10.0.0.1", vip])),
            "endpoint's address, by EndpointSlice default/pods",
        ),
    ] {
        let (kind, other_key) = (other.kind(), other.key().clone());
        let claim = Object::ServiceImport(import("serve", &[vip], &[]));
        for order in [[claim.clone(), other.clone()], [other.clone(), claim.clone()]] {
            let mut core = Core::new();
            order.into_iter().for_each(|object| drop(core.put(object)));
            assert_eq!(core.own("serve"), <[&str; 0]>::default(), "{said}");
            assert!(core.problems()[0].contains(said), "{:?}", core.problems());
            let affected = core.apply(Event::Deleted(kind, other_key.clone()));
            assert!(affected.contains(&"serviceimport/serve".to_owned()), "{affected:?}");
            assert_eq!((core.own("serve"), core.problems()), (vec![vip.to_owned()], vec![]), "{said}");
        }
    }
}

#[test]
fn another_clusters_slice_that_names_an_imports_address_changes_nothing() {
    let mut core = Core::new();
    core.put(Object::ServiceImport(import("serve", &["243.0.0.9"], &[])));
    let affected = core.put(Object::EndpointSlice(slice("hostile", "x", "member1", &["243.0.0.9"])));
    assert_eq!((affected, core.own("serve")), (vec!["x".to_owned()], vec!["243.0.0.9".to_owned()]));
}

#[test]
fn an_import_cannot_take_a_services_address_by_calling_it_derived_from_itself() {
    let mut core = Core::new();
    core.put(Object::Service(unsaid("victim", "10.13.0.9")));
    // Another address, and the same in another namespace.
    core.put(Object::ServiceImport(import("a", &["243.0.0.9"], &["victim"])));
    assert_eq!(core.0.service(&key("victim")).unwrap().opt_in, OptIn::Unsaid);
    let mut elsewhere = import("b", &["10.13.0.9"], &["victim"]);
    elsewhere.key.namespace = "other".into();
    elsewhere.service.key.namespace = "other".into();
    core.put(Object::ServiceImport(elsewhere));
    assert_eq!(core.0.service(&key("victim")).unwrap().opt_in, OptIn::Unsaid);
    assert!(core.problems()[0].contains("ClusterIP of Service default/victim"), "{:?}", core.problems());
}

#[test]
fn an_import_and_its_derived_service_are_one_and_the_imports_values_win() {
    let (mut by_service, mut by_import) = (Core::new(), Core::new());
    let governing = |opt_in| {
        let mut import = import("serve", &["10.13.0.9"], &["derived"]);
        import.service = Service { opt_in, algorithm: Some(Algorithm::Maglev), ..import.service };
        Object::ServiceImport(import)
    };
    let derived = |opt_in| {
        let algorithm = Some(Algorithm::Random);
        Object::Service(Service { opt_in, algorithm, ..service("derived", "10.13.0.9") })
    };
    for (import, service, expected) in [
        (OptIn::Annotation, OptIn::Unsaid, OptIn::Annotation),
        (OptIn::Unsaid, OptIn::Annotation, OptIn::Annotation),
        (OptIn::Unsaid, OptIn::ProxyName, OptIn::ProxyName),
        (OptIn::Refused, OptIn::Annotation, OptIn::Refused),
        (OptIn::Annotation, OptIn::Refused, OptIn::Refused),
        (OptIn::Annotation, OptIn::OtherProxy, OptIn::OtherProxy),
        (OptIn::Unsaid, OptIn::Unsaid, OptIn::Unsaid),
    ] {
        by_service.put(derived(service));
        by_service.put(governing(import));
        by_import.put(governing(import));
        by_import.put(derived(service));
        for core in [&by_service, &by_import] {
            let effective = core.0.service(&key("derived")).unwrap();
            assert_eq!((effective.opt_in, effective.algorithm), (expected, Some(Algorithm::Maglev)));
            assert_eq!(core.own("serve"), <[&str; 0]>::default(), "programmed once");
            assert_eq!(core.0.services().count(), 1);
            assert_eq!(core.problems(), <[&str; 0]>::default());
        }
    }
    let affected = by_import.apply(Event::Deleted(ObjectKind::ServiceImport, key("serve")));
    assert_eq!(affected, ["derived"]);
    assert_eq!(by_import.0.service(&key("derived")).unwrap().algorithm, Some(Algorithm::Random));
}

#[test]
fn an_import_whose_derived_service_is_late_waits_for_it() {
    let mut core = Core::new();
    core.put(Object::ServiceImport(import("serve", &["10.13.0.9"], &["derived"])));
    assert!(core.problems()[0].contains("no derived Service's ClusterIP"), "{:?}", core.problems());
    core.put(Object::ServiceImport(import("serve", &[], &["derived"])));
    assert!(core.problems()[0].contains("spec.ips: there are none"), "{:?}", core.problems());
    assert!(core.put(Object::Service(unsaid("derived", "10.13.0.9"))).contains(&"derived".to_owned()));
    assert_eq!(core.problems(), <[&str; 0]>::default());
    assert_eq!(core.0.service(&key("derived")).unwrap().opt_in, OptIn::Annotation);
}

#[test]
fn a_slice_serves_the_import_that_its_label_names() {
    let mut core = Core::new();
    core.put(Object::ServiceImport(import("serve", &["243.0.0.9"], &[])));
    let named = |service: &str, import: Option<&str>| {
        let import = import.map(Into::into);
        Object::EndpointSlice(EndpointSlice { import, ..slice("a", service, "member1", &["10.10.0.6"]) })
    };
    let of = |core: &Core| core.0.slices_of(&import_key(&key("serve"))).count();
    assert_eq!(core.put(named("", Some("serve"))), ["serviceimport/serve"]);
    assert_eq!(of(&core), 1);
    assert_eq!(core.put(named("derived", Some("serve"))), ["derived", "serviceimport/serve"]);
    assert_eq!(core.put(named("derived", Some("serve"))), <[&str; 0]>::default());
    assert_eq!(core.put(named("derived", None)), ["derived", "serviceimport/serve"]);
    assert_eq!(of(&core), 0);
}

/// What importers call this cluster, against `--cluster-name`.
#[test]
fn a_name_that_importers_give_this_cluster_and_the_flag_does_not_is_told_once() {
    let mut core = Core::new();
    let named = |name: &str, misnamed: Option<&str>| {
        let misnamed = misnamed.map(Into::into);
        Object::EndpointSlice(EndpointSlice { misnamed, ..slice(name, "a", "member1", &["10.10.0.6"]) })
    };
    core.put(named("a", Some("member-2")));
    core.put(named("b", Some("member-2")));
    assert_eq!(core.0.misnamed(), Some("member-2"));
    let problems = core.problems();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.starts_with("EndpointSlice default/a:") && problem.contains("member-2"), "{problem}");
    core.put(named("a", None));
    core.apply(Event::Deleted(ObjectKind::EndpointSlice, key("b")));
    assert_eq!((core.0.misnamed(), core.problems()), (None, vec![]));
}
