//! Which controller wrote an EndpointSlice, and which cluster's pods it names. One small recogniser an importer.

mod antrea;
mod cilium;
mod cloud_map;
mod gke;
mod karmada;
mod karmada_export;
mod kubernetes;
mod lighthouse;
mod linkerd;
mod mcs;
#[cfg(test)]
mod tests;

use super::SourceCluster;
use std::{collections::BTreeMap, fmt};

/// Metadata of an EndpointSlice that tells where it came from.
#[derive(Clone, Copy, Debug)]
pub struct SliceMetadata<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
}

/// Where a slice comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub importer: Importer,
    pub source: SourceCluster,
}

/// What brought a slice into this cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importer {
    /// None: the cluster's own controller, or people.
    #[default]
    Kubernetes,
    Karmada,
    KarmadaExport,
    Cilium,
    CiliumMcs,
    Lighthouse,
    CloudMap,
    Mcs,
    Linkerd,
    Antrea,
    Gke,
}

impl fmt::Display for Importer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kubernetes => "this cluster",
            Self::Karmada => "Karmada MultiClusterService",
            Self::KarmadaExport => "Karmada ServiceExport",
            Self::Cilium => "Cilium EndpointSlice sync",
            Self::CiliumMcs => "Cilium MCS",
            Self::Lighthouse => "Submariner Lighthouse",
            Self::CloudMap => "AWS Cloud Map MCS",
            Self::Mcs => "Kubernetes MCS API",
            Self::Linkerd => "Linkerd multicluster",
            Self::Antrea => "Antrea Multicluster",
            Self::Gke => "GKE MCS",
        })
    }
}

/// Whether a slice is an importer's, and where it then comes from. Of its own metadata, and of the name that this
/// cluster has (`--cluster-name`).
type Recogniser = fn(&SliceMetadata<'_>, &str) -> Option<SourceCluster>;

/// In the order in which they are asked: first those that go by who manages the slice, as labels may have been copied
/// from a Service (Kubernetes does so with local slices, the mirroring controller with all).
const RECOGNISERS: [(Importer, Recogniser); 11] = [
    (Importer::Kubernetes, kubernetes::recognise),
    (Importer::Karmada, karmada::recognise),
    (Importer::KarmadaExport, karmada_export::recognise),
    (Importer::Cilium, cilium::recognise_sync),
    (Importer::CiliumMcs, cilium::recognise_mcs),
    (Importer::Lighthouse, lighthouse::recognise),
    (Importer::CloudMap, cloud_map::recognise),
    (Importer::Mcs, mcs::recognise),
    (Importer::Linkerd, linkerd::recognise),
    (Importer::Antrea, antrea::recognise),
    (Importer::Gke, gke::recognise),
];

/// Where a slice comes from; what no importer is known by is this cluster's own. `own_name` is this cluster's.
#[must_use]
pub fn origin(slice: &SliceMetadata<'_>, own_name: &str) -> Origin {
    RECOGNISERS
        .iter()
        .find_map(|&(importer, recognise)| Some(Origin { importer, source: recognise(slice, own_name)? }))
        .unwrap_or(Origin { importer: Importer::Kubernetes, source: SourceCluster::Local })
}

/// Whether a slice is meant for other readers than a proxy and is passed over.
#[must_use]
pub fn is_passed_over(slice: &SliceMetadata<'_>) -> bool {
    lighthouse::is_on_its_way(slice)
}

/// The name that the importer of this slice gives this cluster, if it gives one.
#[must_use]
pub fn own_name_told<'a>(slice: &SliceMetadata<'a>) -> Option<&'a str> {
    cilium::own_name_told(slice).or_else(|| karmada::receiving_cluster(slice))
}

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// KEP-1645: the cluster that exported what the slice lists. Others use it, too.
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// Clones Endpoints that other controllers write, with their labels and annotations.
const MIRRORING: &str = "endpointslicemirroring-controller.k8s.io";

impl<'a> SliceMetadata<'a> {
    fn label(&self, key: &str) -> Option<&'a str> {
        self.labels.get(key).map(String::as_str)
    }

    fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).map(String::as_str)
    }

    fn is_managed_by(&self, name: &str) -> bool {
        self.label(MANAGED_BY) == Some(name)
    }

    fn service(&self) -> &'a str {
        self.label(SERVICE_NAME).unwrap_or_default()
    }
}

/// A cluster that an importer names; nothing and the empty name are a cluster that it does not name.
fn named(cluster: Option<&str>) -> SourceCluster {
    match cluster {
        None | Some("") => SourceCluster::Unknown,
        Some(name) => SourceCluster::Remote(name.into()),
    }
}

/// As [`named`], of importers that also write slices of this cluster's own pods.
fn named_or_local(cluster: Option<&str>, own_name: &str) -> SourceCluster {
    if cluster == Some(own_name) { SourceCluster::Local } else { named(cluster) }
}
