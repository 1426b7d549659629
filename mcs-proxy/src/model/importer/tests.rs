use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn remote(name: &str) -> SourceCluster {
    SourceCluster::Remote(name.into())
}

const KARMADA: (&str, &str) = (MANAGED_BY, "endpointslice-dispatch-controller.karmada.io");
const KARMADA_OLD: (&str, &str) = (MANAGED_BY, "endpointslice-controller.karmada.io");
const MIRRORED: (&str, &str) = (MANAGED_BY, "endpointslicemirroring-controller.k8s.io");
const LOCAL: (&str, &str) = (MANAGED_BY, "endpointslice-controller.k8s.io");
const MCS: &str = "multicluster.kubernetes.io/source-cluster";
const LIGHTHOUSE: &str = "lighthouse.submariner.io/sourceCluster";

type Pairs<'a> = &'a [(&'a str, &'a str)];

#[test]
fn every_importer_tells_where_its_slices_come_from() {
    let provider = &[("endpointslice.karmada.io/provision-cluster", "member1")][..];
    let derived = (SERVICE_NAME, "derived-legacy");
    let rows: &[(&str, Pairs<'_>, Pairs<'_>, SourceCluster)] = &[
        ("no managed-by at all", &[], &[], SourceCluster::Local),
        (
            "the local controller, whatever else it says",
            &[LOCAL, (MCS, "member1")],
            provider,
            SourceCluster::Local,
        ),
        ("Karmada", &[KARMADA], provider, remote("member1")),
        ("Karmada without its annotation", &[KARMADA], &[], SourceCluster::Unknown),
        ("imported-member1-legacy-r6tkw", &[derived], &[], remote("member1")),
        ("imported-member1-legacy-r6tkw", &[KARMADA_OLD, derived], &[], remote("member1")),
        ("imported-a-legacy-b-legacy-r6tkw", &[KARMADA_OLD, derived], &[], remote("a-legacy-b")),
        ("imported-legacy-r6tkw", &[KARMADA_OLD, derived], &[], SourceCluster::Unknown),
        ("imported-member1-legacy-r6tkw", &[(SERVICE_NAME, "legacy")], &[], SourceCluster::Local),
        ("KEP-1645", &[(MCS, "member1")], &[], remote("member1")),
        ("KEP-1645, our own", &[(MCS, "member2")], &[], SourceCluster::Local),
        ("KEP-1645, nameless", &[(MCS, "")], &[], SourceCluster::Unknown),
        ("lighthouse before 2022", &[(LIGHTHOUSE, "member3")], &[], remote("member3")),
        ("linkerd", &[MIRRORED, ("mirror.linkerd.io/cluster-name", "west")], &[], remote("west")),
        (
            "antrea",
            &[MIRRORED],
            &[("multicluster.antrea.io/imported-service", "true")],
            SourceCluster::Unknown,
        ),
        ("gke", &[MIRRORED, (SERVICE_NAME, "gke-mcs-x1")], &[], SourceCluster::Unknown),
        ("mirrored from local Endpoints", &[MIRRORED, (SERVICE_NAME, "db")], &[], SourceCluster::Local),
        (
            "karmada.io/managed is on local slices too",
            &[("karmada.io/managed", "true")],
            &[],
            SourceCluster::Local,
        ),
    ];
    for (name, labels, annotations, expected) in rows {
        let (labels, annotations) = (map(labels), map(annotations));
        let slice = SliceMetadata { namespace: "default", name, labels: &labels, annotations: &annotations };
        assert_eq!(origin(&slice, "member2").source, *expected, "{name} {labels:?}");
    }
}
