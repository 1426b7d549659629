//! Any implementation of the Kubernetes MCS API (KEP-1645): each slice has one source cluster.

use super::{SOURCE_CLUSTER, SliceMetadata, named_or_local};
use crate::model::SourceCluster;

pub(super) fn recognise(slice: &SliceMetadata<'_>, own_name: &str) -> Option<SourceCluster> {
    slice.label(SOURCE_CLUSTER).map(|cluster| named_or_local(Some(cluster), own_name))
}
