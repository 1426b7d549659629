//! Karmada's older flow of ServiceExport and ServiceImport (`pkg/controllers/mcs`): slices named
//! `imported-<cluster>-<original>` for the Service `derived-<service>`. 1.13 sets no managed-by.

use super::{MANAGED_BY, SliceMetadata, named};
use crate::model::SourceCluster;

const CONTROLLER: &str = "endpointslice-controller.karmada.io";

pub(super) fn recognise(slice: &SliceMetadata<'_>, _own_name: &str) -> Option<SourceCluster> {
    let by_name = slice.name.starts_with("imported-") && slice.service().starts_with("derived-");
    let unmanaged = slice.label(MANAGED_BY).is_none();
    (slice.is_managed_by(CONTROLLER) || (unmanaged && by_name))
        .then(|| named(cluster_in_name(slice.name, slice.service())))
}

/// Of `imported-<cluster>-<service>-<random>`, where the Service is `derived-<service>`. A cluster's name may contain
/// the Service's, hence the last occurrence.
fn cluster_in_name<'a>(slice: &'a str, derived_service: &str) -> Option<&'a str> {
    let service = derived_service.strip_prefix("derived-")?;
    let rest = slice.strip_prefix("imported-")?;
    rest.rfind(&format!("-{service}-")).map(|end| &rest[..end])
}
