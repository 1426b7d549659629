//! Linkerd multicluster (`multicluster/service-mirror`): a Service `<service>-<cluster>` whose Endpoints are the
//! gateway's addresses, which Kubernetes mirrors into slices.

use super::{MIRRORING, SliceMetadata, named};
use crate::model::SourceCluster;

const CLUSTER: &str = "mirror.linkerd.io/cluster-name";

pub(super) fn recognise(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    slice.label(CLUSTER).filter(|_| slice.is_managed_by(MIRRORING)).map(|cluster| named(Some(cluster)))
}
