use std::{collections::BTreeSet, fmt};

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
    pub namespace: String,
    pub name: String,
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
    known: BTreeSet<Problem>,
}

/// How the problems changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProblemNews {
    pub arisen: Vec<Problem>,
    pub solved: Vec<Problem>,
}

impl ProblemTracker {
    /// Compares all `current` problems with those of the last call. One that went and came back is news again.
    pub fn update<'a>(&mut self, current: impl IntoIterator<Item = &'a Problem>) -> ProblemNews {
        let current: BTreeSet<&Problem> = current.into_iter().collect();
        let arisen: Vec<Problem> =
            current.iter().filter(|problem| !self.known.contains(**problem)).map(|&p| p.clone()).collect();
        let solved: Vec<Problem> = self.known.extract_if(.., |problem| !current.contains(problem)).collect();
        self.known.extend(arisen.iter().cloned());
        ProblemNews { arisen, solved }
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
        assert_eq!(tracker.update([&a, &b, &a]).arisen, [a.clone(), b.clone()]);
        assert_eq!(tracker.update([&b, &a]), ProblemNews::default());
        assert_eq!(tracker.update([&b]), ProblemNews { arisen: vec![], solved: vec![a.clone()] });
        assert_eq!(tracker.update([&a, &b]).arisen, [a]);
    }
}
