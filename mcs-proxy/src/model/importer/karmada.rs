//! Karmada's MultiClusterService (`pkg/controllers/multiclusterservice/endpointslice_dispatch_controller.go`): slices
//! copied verbatim from a provider, named `<provider>-<original>`.

use super::{SliceMetadata, named};
use crate::model::SourceCluster;

const CONTROLLER: &str = "endpointslice-dispatch-controller.karmada.io";
const PROVIDER: &str = "endpointslice.karmada.io/provision-cluster";
/// On everything that Karmada puts into a member: the namespace of its Work in the control plane.
const WORK_NAMESPACE: &str = "work.karmada.io/namespace";
/// What such a namespace begins with; the rest is the member's name.
const EXECUTION_SPACE: &str = "karmada-es-";

pub(super) fn recognise(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    slice.is_managed_by(CONTROLLER).then(|| named(slice.annotation(PROVIDER)))
}

/// The member that received the slice.
pub(super) fn receiving_cluster<'a>(slice: &SliceMetadata<'a>) -> Option<&'a str> {
    let name = slice.annotation(WORK_NAMESPACE)?.strip_prefix(EXECUTION_SPACE)?;
    (!name.is_empty()).then_some(name)
}
