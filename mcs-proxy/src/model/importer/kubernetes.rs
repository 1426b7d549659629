//! Kubernetes' own EndpointSlice controller (`pkg/controller/endpointslice`): local, whatever else the slice says. It
//! copies the Service's labels, so that those of importers may be on it, too.

use super::SliceMetadata;
use crate::model::SourceCluster;

const CONTROLLER: &str = "endpointslice-controller.k8s.io";

pub(super) fn recognise(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    slice.is_managed_by(CONTROLLER).then_some(SourceCluster::Local)
}
