use super::ProblemChanges;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Something is wrong with one field of one object; everything else goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub object: ObjectRef,
    /// As a path in the manifest: `spec.ports[0].port`, `metadata.annotations[mcs-proxy.io/algorithm]`.
    pub field: String,
    /// What is wrong, with the offending value.
    pub message: String,
    /// What was done meanwhile and what the reader can do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, message, remedy } = self;
        write!(formatter, "{object}: {field}: {message}; {remedy}")
    }
}

/// Which object, as people name it: `Service default/serve`, `File serve.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub kind: ObjectKind,
    /// Empty for a file and for what has none.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        // Files, and objects from files, may be called anything; a log line stays a line.
        let (namespace, name) = (namespace.escape_debug(), name.escape_debug());
        match kind {
            ObjectKind::Service
            | ObjectKind::EndpointSlice
            | ObjectKind::ServiceImport
            | ObjectKind::ConfigMap => {
                write!(formatter, "{kind} {namespace}/{name}")
            }
            ObjectKind::Node | ObjectKind::File => write!(formatter, "{kind} {name}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Service,
    EndpointSlice,
    ServiceImport,
    /// The one this daemon runs on.
    Node,
    /// The one of the [`Settings`](super::Settings).
    ConfigMap,
    /// A file of the directory source, or the directory itself. Only ever the object of a [`Problem`].
    File,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceImport => "ServiceImport",
            Self::Node => "Node",
            Self::ConfigMap => "ConfigMap",
            Self::File => "File",
        })
    }
}

/// Tells which problems are news, so that each is logged once and not at every change or resync.
#[derive(Debug, Default)]
pub struct ProblemTracker {
    /// How many tell of it.
    known: BTreeMap<Problem, usize>,
}

/// How the problems changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProblemNews {
    pub arisen: Vec<Problem>,
    pub solved: Vec<Problem>,
}

impl ProblemTracker {
    /// Takes in what changed since the last call. One that went and came back meanwhile is no news, one that several
    /// tell of is solved with the last of them.
    pub fn update(&mut self, changes: impl IntoIterator<Item = ProblemChanges>) -> ProblemNews {
        let mut before: BTreeMap<Problem, bool> = BTreeMap::new();
        let mut went = Vec::new();
        for changes in changes {
            for problem in changes.came {
                let count = self.known.entry(problem.clone()).or_default();
                before.entry(problem).or_insert(*count > 0);
                *count += 1;
            }
            went.extend(changes.went);
        }
        for problem in went {
            let Some(count) = self.known.get_mut(&problem) else { continue };
            *count -= 1;
            if *count == 0 {
                self.known.remove(&problem);
            }
            before.entry(problem).or_insert(true);
        }
        let mut news = ProblemNews::default();
        for (problem, was_known) in before {
            match (was_known, self.known.contains_key(&problem)) {
                (false, true) => news.arisen.push(problem),
                (true, false) => news.solved.push(problem),
                (true, true) | (false, false) => {}
            }
        }
        news
    }

    /// As of the last look, by object.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.known.keys()
    }

    /// As of the last look.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: ObjectKind, name: &str) -> Problem {
        Problem {
            object: ObjectRef { kind, namespace: "default".into(), name: name.into() },
            field: "spec.ports".into(),
            message: "empty".into(),
            remedy: "add a port".into(),
        }
    }

    #[test]
    fn a_problem_reads_as_one_line_that_names_object_field_and_way_out() {
        let service = problem(ObjectKind::Service, "serve");
        assert_eq!(service.to_string(), "Service default/serve: spec.ports: empty; add a port");
        let file = problem(ObjectKind::File, "serve.yaml");
        assert_eq!(file.to_string(), "File serve.yaml: spec.ports: empty; add a port");
        let file = problem(ObjectKind::File, "a\nERROR b.yaml");
        assert_eq!(file.to_string(), "File a\\nERROR b.yaml: spec.ports: empty; add a port");
    }

    #[test]
    fn a_problem_is_news_once_and_again_after_it_was_solved() {
        let (a, b) = (problem(ObjectKind::Service, "a"), problem(ObjectKind::Service, "b"));
        let mut tracker = ProblemTracker::default();
        let changes = |came: &[&Problem], went: &[&Problem]| {
            let owned = |problems: &[&Problem]| problems.iter().map(|&problem| problem.clone()).collect();
            [ProblemChanges { came: owned(came), went: owned(went) }]
        };
        assert_eq!(tracker.update(changes(&[&a, &b, &a], &[])).arisen, [a.clone(), b.clone()]);
        assert_eq!(
            tracker.update(changes(&[&b], &[&b, &a])),
            ProblemNews::default(),
            "one tells of it still"
        );
        assert_eq!(tracker.update(changes(&[], &[])), ProblemNews::default());
        let solved = ProblemNews { arisen: vec![], solved: vec![a.clone()] };
        assert_eq!(tracker.update(changes(&[], &[&a])), solved);
        assert_eq!(tracker.update(changes(&[&a], &[&a])), ProblemNews::default(), "came and went");
        assert_eq!(tracker.update(changes(&[&a], &[])).arisen, [a]);
    }
}
