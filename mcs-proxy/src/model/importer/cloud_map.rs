//! AWS Cloud Map MCS (`pkg/controllers/multicluster` of aws-cloud-map-mcs-controller-for-k8s): one Service
//! `imported-<hash>` for each cluster, this one included.

use super::{SOURCE_CLUSTER, SliceMetadata, named_or_local};
use crate::model::SourceCluster;

const CONTROLLER: &str = "aws-cloud-map-mcs-controller-for-k8s";

pub(super) fn recognise(slice: &SliceMetadata<'_>, own_name: &str) -> Option<SourceCluster> {
    slice.is_managed_by(CONTROLLER).then(|| named_or_local(slice.label(SOURCE_CLUSTER), own_name))
}
