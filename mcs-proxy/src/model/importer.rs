use super::SourceCluster;
use std::collections::BTreeMap;

/// Metadata of an EndpointSlice that tells where it came from.
#[derive(Clone, Copy, Debug)]
pub struct SliceMetadata<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
}

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The cluster whose pods a slice names; `own_name` is this cluster's. Unlike the labels that Karmada copies onto
/// local slices too, `managed-by` tells local slices from imports; so it is asked first.
///
/// Sources of the rules: Kubernetes' endpointslice controllers, Karmada's MultiClusterService (dispatch) and its older
/// ServiceExport flow (`imported-…`), KEP-1645, Submariner Lighthouse, Linkerd, Antrea, GKE.
#[must_use]
pub fn source_cluster(slice: &SliceMetadata<'_>, own_name: &str) -> SourceCluster {
    let label = |key: &str| slice.labels.get(key).map(String::as_str);
    let annotation = |key: &str| slice.annotations.get(key).map(String::as_str);
    let service = label(SERVICE_NAME).unwrap_or_default();
    let managed_by = label(MANAGED_BY);

    match managed_by {
        Some("endpointslice-controller.k8s.io") => return SourceCluster::Local,
        Some("endpointslice-dispatch-controller.karmada.io") => {
            return named(annotation("endpointslice.karmada.io/provision-cluster"));
        }
        Some("endpointslice-controller.karmada.io") => {
            return named(cluster_in_imported_name(slice.name, service));
        }
        // Karmada 1.13 sets no managed-by in its older flow.
        None if slice.name.starts_with("imported-") && service.starts_with("derived-") => {
            return named(cluster_in_imported_name(slice.name, service));
        }
        None | Some(_) => {}
    }
    match label("multicluster.kubernetes.io/source-cluster") {
        Some(cluster) if cluster == own_name => return SourceCluster::Local,
        Some(cluster) => return named(Some(cluster)),
        None => {}
    }
    if let Some(cluster) = label("lighthouse.submariner.io/sourceCluster") {
        return named(Some(cluster));
    }
    if managed_by == Some("endpointslicemirroring-controller.k8s.io") {
        if let Some(cluster) = label("mirror.linkerd.io/cluster-name") {
            return named(Some(cluster));
        }
        if annotation("multicluster.antrea.io/imported-service").is_some() || service.starts_with("gke-mcs-")
        {
            return SourceCluster::Unknown;
        }
    }
    SourceCluster::Local
}

fn named(cluster: Option<&str>) -> SourceCluster {
    match cluster {
        None | Some("") => SourceCluster::Unknown,
        Some(name) => SourceCluster::Remote(name.to_owned()),
    }
}

/// `imported-<cluster>-<service>-<random>` of the Service `derived-<service>`. A cluster's name may contain the
/// Service's, hence the last occurrence.
fn cluster_in_imported_name<'a>(slice: &'a str, derived_service: &str) -> Option<&'a str> {
    let service = derived_service.strip_prefix("derived-")?;
    let rest = slice.strip_prefix("imported-")?;
    rest.rfind(&format!("-{service}-")).map(|end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn remote(name: &str) -> SourceCluster {
        SourceCluster::Remote(name.to_owned())
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
            let slice = SliceMetadata { name, labels: &labels, annotations: &annotations };
            assert_eq!(source_cluster(&slice, "member2"), *expected, "{name} {labels:?}");
        }
    }
}
