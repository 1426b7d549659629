use super::{Client, Explanation, Known, Query, answer};
use crate::{
    desired::{Flags, Resolver},
    model::{Model, Problem},
    source::{
        Scope,
        directory::{self, DirectoryError},
    },
};
use std::{collections::BTreeSet, path::Path, time::Instant};

/// What is said of manifests.
#[derive(Debug)]
pub struct Offline {
    /// An error if there is nothing of the name that was asked for.
    pub explanations: Result<Vec<Explanation>, String>,
    /// What is wrong with the rest of what was read: settings, files, objects that nothing here is explained of.
    pub others: Vec<String>,
}

/// Explains what a daemon with these flags and this empty `model`, on the node that `scope` names, would make of a directory of
/// manifests. Without a query: every Service that would be served, and with each the flows of `client`. It takes no rights and
/// no kernel.
///
/// # Errors
/// The directory cannot be read.
pub fn offline(
    directory: &Path,
    flags: Flags,
    scope: &Scope,
    model: Model,
    query: Option<&Query>,
    client: Option<Client>,
    now: i64,
) -> Result<Offline, DirectoryError> {
    let mut model = model;
    for event in directory::read(directory, scope)? {
        model.apply(event);
    }
    let mut resolver = Resolver::new(flags);
    let all = model.services().map(|service| service.key.clone()).collect();
    resolver.update(&model, &all, Instant::now());
    let known = Known { model: &model, resolver: &resolver, told_by: "manifests", now };
    let explanations = match query {
        Some(query) => answer(known, query).map(|explanation| vec![explanation]),
        None => Ok(model
            .services()
            .filter(|service| resolver.claims_of(&service.key).next().is_some())
            .filter_map(|service| answer(known, &Query { client, ..Query::of_service(&service.key) }).ok())
            .collect()),
    };
    let said: BTreeSet<&str> =
        explanations.iter().flatten().flat_map(|one| &one.problems).map(String::as_str).collect();
    let others = model.problems().chain(resolver.problems()).map(Problem::to_string);
    let others = others.filter(|problem| !said.contains(&**problem)).collect();
    Ok(Offline { explanations, others })
}
