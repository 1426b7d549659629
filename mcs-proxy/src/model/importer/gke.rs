//! GKE's multi-cluster Services, of which there are documents and no source: a Service `gke-mcs-<hash>` whose Endpoints
//! Kubernetes mirrors into slices.

use super::{MIRRORING, SliceMetadata};
use crate::model::SourceCluster;

pub(super) fn recognise(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    let is_import = slice.is_managed_by(MIRRORING) && slice.service().starts_with("gke-mcs-");
    is_import.then_some(SourceCluster::Unknown)
}
