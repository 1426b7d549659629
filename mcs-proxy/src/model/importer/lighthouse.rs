//! Submariner Lighthouse (`pkg/agent/controller`): slices without a Service, found by the MCS labels. The endpoint of a
//! Service that is not headless is the exporter's ClusterIP or global IP.

use super::{SOURCE_CLUSTER, SliceMetadata, named_or_local};
use crate::model::SourceCluster;

const CONTROLLER: &str = "lighthouse-agent.submariner.io";
/// Before 2022, in the place of the standard label.
const OLD_SOURCE_CLUSTER: &str = "lighthouse.submariner.io/sourceCluster";
const SOURCE_NAMESPACE: &str = "lighthouse.submariner.io/sourceNamespace";

pub(super) fn recognise(slice: &SliceMetadata<'_>, own_name: &str) -> Option<SourceCluster> {
    let cluster = slice.label(SOURCE_CLUSTER).filter(|_| slice.is_managed_by(CONTROLLER));
    // The standard label of another importer's slice says more than the old one.
    let old = || slice.label(OLD_SOURCE_CLUSTER).filter(|_| slice.label(SOURCE_CLUSTER).is_none());
    cluster.or_else(old).map(|cluster| named_or_local(Some(cluster), own_name))
}

/// A copy in the namespace of the broker, on its way to the namespace it is meant for.
pub(super) fn is_on_its_way(slice: &SliceMetadata<'_>) -> bool {
    slice.label(SOURCE_NAMESPACE).is_some_and(|namespace| namespace != slice.namespace)
}
