//! Every importer's objects, as seen from member2: who brought which slice from where, and what is served in the end.

use crate::{
    desired::{Flags, Resolver},
    model::{EndpointSlice, Model, OptIn},
    source::{
        Event, Object,
        decode::{Manifest, manifests},
    },
};
use mcs_proxy_ebpf::abi::Algorithm;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

fn objects(text: &str) -> Vec<Object> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let found = documents.into_iter().flat_map(|document| manifests(document, "member2"));
    found
        .map(|manifest| {
            let Manifest::Object(object) = manifest else { panic!("{manifest:?}") };
            assert_eq!(object.problems(), &vec![], "{}", object.key());
            object
        })
        .collect()
}

fn origins(objects: &[Object]) -> Vec<String> {
    let origin =
        |slice: &EndpointSlice| format!("{}: {} from {}", slice.key.name, slice.importer, slice.source);
    let slice =
        |object: &Object| if let Object::EndpointSlice(slice) = object { Some(origin(slice)) } else { None };
    objects.iter().filter_map(slice).collect()
}

/// What is served once these have arrived in this order, and what is wrong.
fn served<'a>(objects: impl Iterator<Item = &'a Object>) -> (Vec<String>, Vec<String>) {
    let mut model = Model::default().with_import_ranges(vec!["243.0.0.0/8".parse().unwrap()]);
    let mut resolver = Resolver::new(Flags {
        cluster_name: "member2".into(),
        node_name: "member2-node-1".into(),
        default_algorithm: Algorithm::RoundRobin,
        all_services: false,
        tier_hold: std::time::Duration::ZERO,
        eject_unanswered: false,
    });
    for object in objects {
        let affected = model.apply(Event::Applied(object.clone()));
        resolver.update(&model, &affected, std::time::Instant::now());
    }
    let frontends = resolver.desired().iter().map(|(key, frontend)| {
        let mut slots = frontend.slots.to_vec();
        slots.sort_unstable();
        format!("{key} {} {slots:?}", frontend.service.name)
    });
    (frontends.collect(), model.problems().chain(resolver.problems()).map(ToString::to_string).collect())
}

#[track_caller]
fn check(text: &str, expected_origins: &[&str], expected_frontends: &[&str]) {
    let objects = objects(text);
    assert_eq!(origins(&objects), expected_origins);
    for (frontends, problems) in [served(objects.iter()), served(objects.iter().rev())] {
        assert_eq!(frontends, expected_frontends, "in whatever order they arrive");
        assert_eq!(problems, <[&str; 0]>::default());
    }
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/", $name))
    };
}

#[test]
fn cilium_synchronized_slices() {
    check(
        fixture!("cilium.yaml"),
        &["serve-member1-7xk2p: Cilium EndpointSlice sync from member1"],
        &["TCP 10.13.0.20:80 serve [10.10.0.6:8080]"],
    );
}

#[test]
fn cilium_mcs_is_enabled_on_the_import_and_served_as_the_derived_service() {
    check(
        fixture!("cilium-mcs.yaml"),
        &[
            "derived-3vd0jh5jvb-9xw2c: Cilium MCS from local",
            "derived-3vd0jh5jvb-member1-qhz4k: Cilium EndpointSlice sync from member1",
        ],
        &["TCP 10.13.0.21:80 derived-3vd0jh5jvb [10.10.0.6:8080, 10.12.0.6:8080]"],
    );
}

#[test]
fn lighthouse_has_no_service_and_what_lies_at_the_broker_is_passed_over() {
    check(
        fixture!("lighthouse.yaml"),
        &[
            "serve-x7w2d: Submariner Lighthouse from member1",
            "serve-lq9t4: Submariner Lighthouse from local",
            "serve-member3: Submariner Lighthouse from member3",
        ],
        &["TCP 243.1.0.4:80 serviceimport/serve [10.11.181.116:80, 10.13.77.8:80]"],
    );
}

#[test]
fn cloud_map_has_a_derived_service_for_each_cluster() {
    check(
        fixture!("cloud-map.yaml"),
        &[
            "imported-vm6pdvp7di-4dq7n: AWS Cloud Map MCS from member1",
            "imported-i8hm9c3um2-k29xs: AWS Cloud Map MCS from local",
        ],
        &[
            "TCP 10.13.0.23:80 imported-vm6pdvp7di [10.10.0.6:8080]",
            "TCP 10.13.0.24:80 imported-i8hm9c3um2 [10.12.0.6:8080]",
        ],
    );
}

#[test]
fn an_mcs_import_and_its_derived_service_are_served_once_and_each_port_by_who_exposes_it() {
    check(
        fixture!("mcs-v1beta1.yaml"),
        &[
            "serve-member1-h4d8w: Kubernetes MCS API from member1",
            "serve-member3-c2m6z: Kubernetes MCS API from member3",
        ],
        &[
            "TCP 10.13.0.25:80 derived-9rp6jcp1ag [10.10.0.6:8080]",
            "TCP 10.13.0.25:8081 derived-9rp6jcp1ag [10.10.0.6:8443, 10.14.0.6:9443]",
            "TCP [fd00:13::25]:80 derived-9rp6jcp1ag []",
            "TCP [fd00:13::25]:8081 derived-9rp6jcp1ag []",
        ],
    );
}

#[test]
fn an_mcs_import_without_a_derived_service_is_served_by_the_slices_with_its_label() {
    check(
        fixture!("mcs-v1alpha1.yaml"),
        &[
            "serve-member1-h4d8w: Kubernetes MCS API from member1",
            "serve-member3-c2m6z: Kubernetes MCS API from member3",
        ],
        &[
            "TCP 243.0.0.9:80 serviceimport/serve [10.10.0.6:8080]",
            "TCP 243.0.0.9:8081 serviceimport/serve [10.14.0.6:9443]",
        ],
    );
}

#[test]
fn linkerds_mirrors_name_their_cluster() {
    check(
        fixture!("linkerd.yaml"),
        &["serve-member1-5hb2r: Linkerd multicluster from member1"],
        &["TCP 10.13.0.27:80 serve-member1 [203.0.113.7:4143]"],
    );
}

#[test]
fn antreas_imports_name_no_cluster() {
    check(
        fixture!("antrea.yaml"),
        &["antrea-mc-serve-vz8mk: Antrea Multicluster from unknown"],
        &["TCP 10.13.0.28:80 antrea-mc-serve [10.11.181.116:80]"],
    );
}

#[test]
fn gkes_imports_name_no_cluster() {
    check(
        fixture!("gke.yaml"),
        &["gke-mcs-1pqvt68n7a-t6c9f: GKE MCS from unknown"],
        &["TCP 10.13.0.29:80 gke-mcs-1pqvt68n7a [10.10.0.6:8080]"],
    );
}

#[test]
fn karmadas_services_are_enabled_from_the_control_plane_for_one_member_or_on_its_own_copy() {
    for (text, is_managed) in [
        (fixture!("annotated/karmada-control-plane.yaml"), true),
        (fixture!("annotated/karmada-override.yaml"), true),
        (fixture!("annotated/karmada-canary.yaml"), false),
    ] {
        check(
            text,
            &["member1-serve-4j6n5: Karmada MultiClusterService from member1"],
            &["TCP 10.13.1.63:80 serve [10.10.0.6:8080]"],
        );
        assert_eq!(text.contains("managed-annotations: mcs-proxy.io/"), is_managed, "{text}");
    }
}

#[test]
fn an_import_has_what_the_export_annotates_it_with() {
    check(
        fixture!("annotated/mcs-exported.yaml"),
        &["serve-member1-h4d8w: Kubernetes MCS API from member1"],
        &["TCP 10.13.0.25:80 derived-9rp6jcp1ag [10.10.0.6:8080]"],
    );
}

/// Without our annotation nothing of all that is served: it is what each fixture puts somewhere else.
#[test]
fn no_importers_objects_are_served_unasked() {
    for text in [
        fixture!("annotated/karmada-control-plane.yaml"),
        fixture!("annotated/karmada-override.yaml"),
        fixture!("annotated/karmada-canary.yaml"),
        fixture!("annotated/mcs-exported.yaml"),
        fixture!("antrea.yaml"),
        fixture!("cilium-mcs.yaml"),
        fixture!("cilium.yaml"),
        fixture!("cloud-map.yaml"),
        fixture!("gke.yaml"),
        fixture!("lighthouse.yaml"),
        fixture!("linkerd.yaml"),
        fixture!("mcs-v1alpha1.yaml"),
        fixture!("mcs-v1beta1.yaml"),
    ] {
        let text = text.replace("mcs-proxy.io/enabled: \"true\"", "example.com/other: \"true\"");
        assert_eq!(served(objects(&text).iter()).0, <[&str; 0]>::default(), "{text}");
    }
}

/// The table names every file here, and no other.
#[test]
fn the_readmes_table_of_importers_names_the_fixtures_that_prove_it() {
    const README: &str = include_str!("../../../../../README.md");
    let (_, table) = README.split_once("| importer | told by |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let cells = table.lines().skip(2).map(|row| row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1);
    let named: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/fixtures");
    let mut files = BTreeSet::new();
    for sub in ["", "karmada", "annotated"] {
        let entries = fs::read_dir(folder.join(sub)).unwrap().map(|entry| entry.unwrap().path());
        let yaml = entries.filter(|path| path.extension().is_some_and(|it| it == "yaml"));
        files.extend(
            yaml.map(|path| path.strip_prefix(&folder).unwrap().with_extension("").display().to_string()),
        );
    }
    let matches = |name: &str, file: &str| match name.strip_suffix('*') {
        Some(start) => file.starts_with(start),
        None => file == name,
    };
    for name in &named {
        assert!(files.iter().any(|file| matches(name, file)), "no fixture {name}");
    }
    for file in &files {
        assert!(named.iter().any(|name| matches(name, file)), "{file} is not in the table");
    }
}

/// Karmada's own are in [`super::karmada`].
#[test]
fn karmadas_older_flow_is_enabled_on_the_import_or_on_the_derived_service() {
    let import = fixture!("karmada/legacy-member2-serviceimports.yaml");
    let services = fixture!("karmada/legacy-member2-services.yaml");
    let slices = fixture!("karmada/legacy-member2-endpointslices.yaml");
    let legacy = |object: &Object| object.key().name.contains("legacy");
    let mut of: Vec<Object> = [services, slices, import].iter().flat_map(|text| objects(text)).collect();
    of.retain(legacy);
    assert_eq!(origins(&of), ["imported-member1-legacy-r6tkw: Karmada ServiceExport from member1"]);
    assert_eq!(served(of.iter()).0, <[&str; 0]>::default(), "nobody asked");

    let enabled = |mut object: Object, kind: &str| {
        match (&mut object, kind) {
            (Object::ServiceImport(import), "import") => import.service.opt_in = OptIn::Annotation,
            (Object::Service(service), "derived") => service.opt_in = OptIn::Annotation,
            _ => {}
        }
        object
    };
    for kind in ["import", "derived"] {
        let of: Vec<Object> = of.iter().cloned().map(|object| enabled(object, kind)).collect();
        for (frontends, problems) in [served(of.iter()), served(of.iter().rev())] {
            assert_eq!(frontends, ["TCP 10.13.255.29:80 derived-legacy [10.10.0.9:8080]"], "{kind}");
            assert_eq!(problems, <[&str; 0]>::default());
        }
    }
}
