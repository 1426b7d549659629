//! Cilium's two: global Services synchronized as slices (`pkg/clustermesh/endpointslicesync`), whose nodeName and zone
//! are the remote cluster's name; and its MCS API (`pkg/clustermesh/mcsapi`), which mirrors the local cluster's slices
//! onto the derived Service, with the local cluster's name as the source.

use super::{SOURCE_CLUSTER, SliceMetadata, named_or_local};
use crate::model::SourceCluster;

const SYNC_CONTROLLER: &str = "endpointslice-mesh-controller.cilium.io";
const MCS_CONTROLLER: &str = "endpointslice-local-mcsapi-controller.cilium.io";

pub(super) fn recognise_sync(slice: &SliceMetadata<'_>, own_name: &str) -> Option<SourceCluster> {
    slice.is_managed_by(SYNC_CONTROLLER).then(|| named_or_local(slice.label(SOURCE_CLUSTER), own_name))
}

/// Local, even if Cilium calls this cluster by another name than `--cluster-name`: that controller mirrors no other
/// cluster's pods.
pub(super) fn recognise_mcs(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    slice.is_managed_by(MCS_CONTROLLER).then_some(SourceCluster::Local)
}

pub(super) fn own_name_told<'a>(slice: &SliceMetadata<'a>) -> Option<&'a str> {
    if slice.is_managed_by(MCS_CONTROLLER) { slice.label(SOURCE_CLUSTER) } else { None }
}
