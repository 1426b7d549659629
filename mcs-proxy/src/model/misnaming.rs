use super::{Ledger, NamespacedName, ObjectKind, ObjectRef, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// What importers call this cluster on slices they brought here, where that is not `--cluster-name`: then either the
/// flag is wrong, or the slices are not meant for this cluster.
#[derive(Debug, Default)]
pub(super) struct Misnaming {
    names: BTreeMap<NamespacedName, Box<str>>,
    problem: Ledger<()>,
}

impl Misnaming {
    /// What a slice says now.
    pub(super) fn note(&mut self, slice: &NamespacedName, name: Option<Box<str>>) {
        let former = match name {
            Some(name) => self.names.insert(slice.clone(), name),
            None => self.names.remove(slice),
        };
        if former.as_ref() != self.names.get(slice) {
            self.problem.put((), self.find().into_iter().collect());
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.names.values().next().map(|name| &**name)
    }

    /// One for all slices.
    pub(super) const fn problem(&self) -> &Ledger<()> {
        &self.problem
    }

    pub(super) const fn problem_mut(&mut self) -> &mut Ledger<()> {
        &mut self.problem
    }

    fn find(&self) -> Option<Problem> {
        let slice = self.names.keys().next()?;
        let names: BTreeSet<&str> = self.names.values().map(|name| &**name).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Some(Problem {
            object: ObjectRef {
                kind: ObjectKind::EndpointSlice,
                namespace: slice.namespace.clone(),
                name: slice.name.clone(),
            },
            field: "metadata".into(),
            message: format!(
                "its importer calls this cluster {}, and --cluster-name does not",
                names.escape_debug()
            ),
            remedy: "local endpoints may be taken for remote ones and the reverse; see which name is right"
                .into(),
        })
    }
}
