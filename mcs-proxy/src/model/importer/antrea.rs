//! Antrea Multicluster (`multicluster/controllers`): a Service `antrea-mc-<service>` whose Endpoints, those of all
//! clusters in one, Kubernetes mirrors into slices. It does not say which cluster an address is of.

use super::{MIRRORING, SliceMetadata};
use crate::model::SourceCluster;

const IMPORTED: &str = "multicluster.antrea.io/imported-service";

pub(super) fn recognise(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    (slice.is_managed_by(MIRRORING) && slice.annotation(IMPORTED).is_some()).then_some(SourceCluster::Unknown)
}
