use super::Problem;
use std::{collections::BTreeMap, mem};

/// What is wrong now, by what it is wrong with; and what of that is news, so that whoever tells of it need not look through
/// all objects at every change of one.
#[derive(Debug)]
pub struct Ledger<K> {
    known: BTreeMap<K, Vec<Problem>>,
    changes: ProblemChanges,
}

/// How the problems of a [`Ledger`] changed since the last look. One that came and went may be in both.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProblemChanges {
    pub came: Vec<Problem>,
    pub went: Vec<Problem>,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), changes: ProblemChanges::default() }
    }
}

impl<K: Ord> Ledger<K> {
    /// This, and no more, is wrong with it.
    pub fn put(&mut self, key: K, mut problems: Vec<Problem>) {
        problems.sort();
        problems.dedup();
        let former = self.known.get(&key).map(Vec::as_slice).unwrap_or_default();
        if former == problems {
            return;
        }
        let missing = |from: &[Problem], all: &[Problem]| -> Vec<Problem> {
            all.iter().filter(|problem| !from.contains(problem)).cloned().collect()
        };
        self.changes.went.extend(missing(&problems, former));
        self.changes.came.extend(missing(former, &problems));
        if problems.is_empty() {
            self.known.remove(&key);
        } else {
            self.known.insert(key, problems);
        }
    }

    /// This is wrong with it, too.
    pub fn add(&mut self, key: K, problem: Problem) {
        let mut problems = self.known.get(&key).cloned().unwrap_or_default();
        problems.push(problem);
        self.put(key, problems);
    }

    /// All, by what they are wrong with.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.known.values().flatten()
    }

    #[must_use]
    pub fn take_changes(&mut self) -> ProblemChanges {
        mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectKind, ObjectRef};

    #[test]
    fn what_stays_as_it_was_is_no_news() {
        let problem = |message: &str| Problem {
            object: ObjectRef {
                kind: ObjectKind::Service,
                namespace: "default".into(),
                name: "serve".into(),
            },
            field: "spec.ports".into(),
            message: message.into(),
            remedy: "mend it".into(),
        };
        let (a, b, c) = (problem("a"), problem("b"), problem("c"));
        let mut ledger = Ledger::default();
        ledger.put(1, vec![b.clone(), a.clone(), a.clone()]);
        assert_eq!(ledger.take_changes(), ProblemChanges { came: vec![a.clone(), b.clone()], went: vec![] });
        ledger.put(1, vec![a.clone(), b.clone()]);
        ledger.put(2, Vec::new());
        ledger.add(1, a.clone());
        assert_eq!(ledger.take_changes(), ProblemChanges::default());
        ledger.add(1, c.clone());
        ledger.put(2, vec![a.clone()]);
        assert_eq!(ledger.take_changes().came, [c.clone(), a.clone()]);
        ledger.put(1, vec![c.clone()]);
        assert_eq!(ledger.take_changes(), ProblemChanges { came: vec![], went: vec![a.clone(), b] });
        assert!(ledger.iter().eq([&c, &a]));
    }
}
