use super::{Explanation, Known, Query, answer};
use crate::{
    desired::{Flags, Resolver},
    model::Model,
    source::{
        Scope,
        directory::{self, DirectoryError},
    },
};
use std::{path::Path, time::Instant};

/// Why manifests cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("{0}")]
    Unknown(String),
}

/// Explains what a daemon with these flags and this empty `model`, on the node that `scope` names, would make of a directory of manifests. Without a query:
/// every Service that would be served. It takes no rights and no kernel.
///
/// # Errors
/// The directory cannot be read, or nothing of that name is in it.
pub fn offline(
    directory: &Path,
    flags: Flags,
    scope: &Scope,
    model: Model,
    query: Option<&Query>,
    now: i64,
) -> Result<Vec<Explanation>, OfflineError> {
    let mut model = model;
    for event in directory::read(directory, scope)? {
        model.apply(event);
    }
    let mut resolver = Resolver::new(flags);
    let all = model.services().map(|service| service.key.clone()).collect();
    resolver.update(&model, &all, Instant::now());
    let known = Known { model: &model, resolver: &resolver, told_by: "manifests", now };
    match query {
        Some(query) => Ok(vec![answer(known, query).map_err(OfflineError::Unknown)?]),
        None => Ok(model
            .services()
            .filter(|service| resolver.claims_of(&service.key).next().is_some())
            .filter_map(|service| answer(known, &Query::of_service(&service.key)).ok())
            .collect()),
    }
}
