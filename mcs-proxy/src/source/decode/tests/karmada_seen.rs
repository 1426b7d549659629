//! What Karmada was seen doing (1.13.1 and 1.18.2 over real API servers), step by step, as member2 sees it, and what
//! the maps should hold after each step.

use crate::{
    desired::{Flags, Resolver},
    model::{Model, NamespacedName, ObjectKind},
    source::{
        Event, Object,
        decode::{Manifest, manifests},
    },
};
use mcs_proxy_ebpf::abi::Algorithm;
use serde_json::{Value, json};

struct Member2 {
    model: Model,
    resolver: Resolver,
}

fn object(document: Value) -> Object {
    let Manifest::Object(object) = manifests(document, "member2").remove(0) else { panic!() };
    object
}

fn service() -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "serve", "namespace": "default", "annotations": {"mcs-proxy.io/enabled": "true"}},
        "spec": {"clusterIP": "10.13.1.63", "ports": [{"port": 80}]},
    }))
}

/// `cluster`: `member2` for a local slice. `endpoints`: addresses, each `!` for not ready, `~` for terminating; without
/// any it is a placeholder.
fn slice(name: &str, cluster: &str, endpoints: &[&str]) -> Object {
    let managed_by = match cluster {
        "member2" => "endpointslice-controller.k8s.io",
        _ => "endpointslice-dispatch-controller.karmada.io",
    };
    let list: Vec<Value> = endpoints
        .iter()
        .map(|text| {
            let address = text.trim_start_matches(['!', '~']);
            let (down, terminating) = (text.starts_with('!'), text.starts_with('~'));
            let conditions =
                json!({"ready": !down && !terminating, "serving": !down, "terminating": terminating});
            json!({"addresses": [address], "conditions": conditions, "nodeName": "node-1"})
        })
        .collect();
    let (endpoints, ports) = match &list[..] {
        [] => (Value::Null, Value::Null),
        _ => (json!(list), json!([{"name": "", "port": 8080, "protocol": "TCP"}])),
    };
    object(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": "serve", "karmada.io/managed": "true",
                "endpointslice.kubernetes.io/managed-by": managed_by,
            },
            "annotations": {
                "endpointslice.karmada.io/provision-cluster": cluster,
                "work.karmada.io/namespace": "karmada-es-member2",
            },
        },
        "endpoints": endpoints, "ports": ports,
    }))
}

impl Member2 {
    fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let flags = Flags {
            cluster_name: "member2".into(),
            node_name: "node-1".into(),
            default_algorithm: Algorithm::RoundRobin,
            all_services: false,
            tier_hold: std::time::Duration::ZERO,
            eject_unanswered: false,
        };
        let mut member2 = Self { model: Model::default(), resolver: Resolver::new(flags) };
        objects.into_iter().for_each(|object| drop(member2.put(object)));
        member2
    }

    fn apply(&mut self, event: Event) -> Option<Vec<String>> {
        let affected = self.model.apply(event);
        self.resolver.update(&self.model, &affected, std::time::Instant::now());
        assert_eq!(self.model.problems().chain(self.resolver.problems()).count(), 0);
        let frontend = self.resolver.desired().values().next()?;
        let mut slots: Vec<_> = frontend.slots.iter().map(|slot| slot.ip().to_string()).collect();
        slots.sort_unstable();
        Some(slots)
    }

    fn put(&mut self, object: Object) -> Option<Vec<String>> {
        self.apply(Event::Applied(object))
    }

    fn delete(&mut self, kind: ObjectKind, name: &str) -> Option<Vec<String>> {
        self.apply(Event::Deleted(kind, NamespacedName::new("default", name)))
    }
}

fn slots(addresses: &[&str]) -> Option<Vec<String>> {
    Some(addresses.iter().map(|&address| address.to_owned()).collect())
}

const IMPORT: &str = "10.10.0.6";
const LOCAL: &str = "10.12.0.6";

fn usual() -> [Object; 3] {
    [service(), slice("serve-l", "member2", &[LOCAL]), slice("member1-serve-a", "member1", &[IMPORT])]
}

#[test]
fn a_service_and_its_slices_may_arrive_in_any_order_and_a_placeholder_adds_nothing() {
    let placeholder = || slice("member3-serve-p", "member3", &[]);
    let objects: Vec<Object> = usual().into_iter().chain([placeholder()]).collect();
    for start in 0..objects.len() {
        let mut order = objects.clone();
        order.rotate_left(start);
        let mut member2 = Member2::new(order);
        assert_eq!(member2.put(placeholder()), slots(&[IMPORT, LOCAL]), "from {start}");
    }
}

#[test]
fn a_remote_pod_that_is_not_ready_or_terminates_or_is_gone_counts_at_once() {
    for now in [&["!10.10.0.6"][..], &["~10.10.0.6"], &[]] {
        let mut member2 = Member2::new(usual());
        assert_eq!(member2.put(slice("member1-serve-a", "member1", now)), slots(&[LOCAL]), "{now:?}");
        assert_eq!(member2.put(slice("member1-serve-a", "member1", &[IMPORT])), slots(&[IMPORT, LOCAL]));
    }
}

/// Karmada leaves some imports, or all, as they were: ready. That is no reason to act on our own.
#[test]
fn imports_of_a_provider_whose_api_server_died_stay_until_they_are_withdrawn() {
    let mut member2 = Member2::new(usual());
    let again = Event::Replaced(
        ObjectKind::EndpointSlice,
        usual().into_iter().filter(|object| object.kind() == ObjectKind::EndpointSlice).collect(),
    );
    assert_eq!(member2.apply(again), slots(&[IMPORT, LOCAL]));
    assert_eq!(member2.delete(ObjectKind::EndpointSlice, "member1-serve-a"), slots(&[LOCAL]));
}

#[test]
fn a_provider_that_is_added_again_has_two_imports_that_overlap_and_each_pod_counts_once() {
    let mut member2 = Member2::new(usual());
    let second = slice("member1-serve-b", "member1", &[IMPORT, "10.10.0.7"]);
    assert_eq!(member2.put(second), slots(&[IMPORT, "10.10.0.7", LOCAL]));
    // The stale one goes, or, with 1.18.2, a dead slice's import comes back for a while.
    assert_eq!(
        member2.delete(ObjectKind::EndpointSlice, "member1-serve-a"),
        slots(&[IMPORT, "10.10.0.7", LOCAL])
    );
    let dead = slice("member1-serve-dead", "member1", &["10.10.0.99"]);
    assert_eq!(member2.put(dead), slots(&[IMPORT, "10.10.0.7", "10.10.0.99", LOCAL]));
    assert_eq!(
        member2.delete(ObjectKind::EndpointSlice, "member1-serve-dead"),
        slots(&[IMPORT, "10.10.0.7", LOCAL])
    );
}

/// With 1.18.2 the providers' own slices go, too, and come back under new names.
#[test]
fn after_a_multi_cluster_service_is_deleted_the_local_slices_of_new_names_serve() {
    let mut member2 = Member2::new(usual());
    member2.delete(ObjectKind::EndpointSlice, "member1-serve-a");
    member2.delete(ObjectKind::EndpointSlice, "serve-l");
    assert_eq!(member2.put(slice("serve-m", "member2", &[LOCAL])), slots(&[LOCAL]));
}

#[test]
fn an_import_deleted_by_hand_is_back_with_its_sources_next_change() {
    let mut member2 = Member2::new(usual());
    assert_eq!(member2.delete(ObjectKind::EndpointSlice, "member1-serve-a"), slots(&[LOCAL]));
    let changed = slice("member1-serve-a", "member1", &[IMPORT, "10.10.0.7"]);
    assert_eq!(member2.put(changed), slots(&[IMPORT, "10.10.0.7", LOCAL]));
}

#[test]
fn imports_that_are_left_without_their_service_serve_nobody_until_it_is_back() {
    let mut member2 = Member2::new(usual());
    assert_eq!(member2.delete(ObjectKind::Service, "serve"), None);
    member2.delete(ObjectKind::EndpointSlice, "serve-l");
    assert_eq!(member2.put(slice("member1-serve-a", "member1", &[IMPORT, "10.10.0.7"])), None);
    assert_eq!(member2.put(service()), slots(&[IMPORT, "10.10.0.7"]), "as orphans they are up to date");
}

#[test]
fn an_import_says_what_this_cluster_is_called() {
    for (receiver, misnamed) in [("member2", None), ("member-2", Some("member-2"))] {
        let mut document = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": null,
            "metadata": {"name": "a", "labels": {
                "kubernetes.io/service-name": "serve",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-dispatch-controller.karmada.io",
            }},
        });
        document["metadata"]["annotations"] =
            json!({"work.karmada.io/namespace": format!("karmada-es-{receiver}")});
        let Object::EndpointSlice(slice) = object(document) else { panic!() };
        assert_eq!(slice.misnamed.as_deref(), misnamed);
    }
}
