use super::documents;
use crate::{
    model::{NamespacedName, ObjectKind, ObjectRef, Problem},
    source::{
        Event, KINDS, Object, Scope,
        decode::{Manifest, manifests},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    io,
};

/// What was read from the files of a directory, by file name: the bytes, or why not.
pub(super) type Files = BTreeMap<String, io::Result<Vec<u8>>>;

type Key = (ObjectKind, NamespacedName);
type Objects = BTreeMap<Key, Object>;
type Problems = BTreeMap<ObjectRef, BTreeSet<Problem>>;

/// What a directory of manifests says, file by file, and what of it was told already.
#[derive(Debug)]
pub(super) struct Content {
    scope: Scope,
    files: BTreeMap<String, File>,
    told: Objects,
    told_problems: Problems,
}

/// The last good content of a file, and what is wrong with the present one.
#[derive(Debug, Default)]
struct File {
    /// Of the bytes as they were read last; `None` if they could not be read.
    hash: Option<u64>,
    objects: Objects,
    problems: Vec<Problem>,
}

impl Content {
    pub(super) fn new(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            files: BTreeMap::new(),
            told: Objects::new(),
            told_problems: Problems::new(),
        }
    }

    /// Takes in what the directory holds at first, and yields every kind as a complete list.
    pub(super) fn start(&mut self, files: Files) -> Vec<Event> {
        self.read(files);
        let (objects, problems) = self.merge();
        let all_of = |kind| {
            let of_kind = objects.values().filter(|object| object.kind() == kind);
            Event::Replaced(kind, of_kind.cloned().collect())
        };
        let mut events: Vec<_> = KINDS.into_iter().map(all_of).collect();
        self.told = objects;
        self.tell_problems(problems, &mut events);
        events
    }

    /// Takes in what the directory holds now, and yields what changed.
    pub(super) fn update(&mut self, files: Files) -> Vec<Event> {
        self.read(files);
        let (objects, problems) = self.merge();
        let mut events = Vec::new();
        for (kind, key) in self.told.keys().filter(|key| !objects.contains_key(key)) {
            events.push(Event::Deleted(*kind, key.clone()));
        }
        for (key, object) in &objects {
            if self.told.get(key) != Some(object) {
                events.push(Event::Applied(object.clone()));
            }
        }
        self.told = objects;
        self.tell_problems(problems, &mut events);
        events
    }

    /// The directory itself cannot be read: all content stays as it is.
    pub(super) fn unreadable(&mut self, directory: &str, error: &io::Error) -> Vec<Event> {
        let mut problems = self.merge().1;
        let problem =
            file_problem(directory, "(directory)", error.to_string(), "its last content stays; restore it");
        problems.entry(problem.object.clone()).or_default().insert(problem);
        let mut events = Vec::new();
        self.tell_problems(problems, &mut events);
        events
    }

    fn read(&mut self, files: Files) {
        self.files.retain(|name, _| files.contains_key(name));
        for (name, bytes) in files {
            let file = self.files.entry(name.clone()).or_default();
            let hash = bytes.as_ref().ok().map(|bytes| hash_of(bytes));
            if hash.is_some() && hash == file.hash {
                continue;
            }
            file.hash = hash;
            let documents = match bytes {
                Ok(bytes) => documents::parse(&name, &bytes),
                Err(error) => Err(error.to_string()),
            };
            match documents {
                Ok(documents) => file.take(&name, documents, &self.scope),
                Err(message) => {
                    let remedy = "its last good content stays (at first: none); mend the file";
                    file.problems = vec![file_problem(&name, "(content)", message, remedy)];
                }
            }
        }
    }

    /// All objects, the last file by name winning, and all problems of what could not be read.
    fn merge(&self) -> (Objects, Problems) {
        let mut objects = Objects::new();
        let mut origin: BTreeMap<&Key, &str> = BTreeMap::new();
        let mut problems = Problems::new();
        for (name, file) in &self.files {
            for (key, object) in &file.objects {
                let mut object = object.clone();
                if let Some(other) = origin.insert(key, name) {
                    let problem = Problem {
                        object: reference(key),
                        field: "metadata.name".into(),
                        message: format!("is both in {other} and in {name}"),
                        remedy: format!("the one in {name} is used; remove the other"),
                    };
                    object.problems_mut().push(problem);
                }
                objects.insert(key.clone(), object);
            }
            for problem in &file.problems {
                problems.entry(problem.object.clone()).or_default().insert(problem.clone());
            }
        }
        (objects, problems)
    }

    fn tell_problems(&mut self, problems: Problems, events: &mut Vec<Event>) {
        for (object, told) in &self.told_problems {
            if problems.get(object) != Some(told) {
                events.push(Event::Mended(object.clone()));
            }
        }
        for (object, now) in &problems {
            if self.told_problems.get(object) != Some(now) {
                events.extend(now.iter().cloned().map(Event::Problem));
            }
        }
        self.told_problems = problems;
    }
}

impl File {
    fn take(&mut self, name: &str, documents: Vec<serde_json::Value>, scope: &Scope) {
        let last_good = std::mem::take(&mut self.objects);
        self.problems.clear();
        for (i, document) in documents.into_iter().enumerate() {
            for manifest in manifests(document, &scope.cluster_name) {
                match manifest {
                    Manifest::Object(object) if !scope.concerns(object.kind(), object.key()) => {}
                    Manifest::Unreadable { kind, key, .. } if !scope.concerns(kind, &key) => {}
                    Manifest::Object(object) => self.put(name, object),
                    Manifest::Unreadable { kind, key, problem } => {
                        self.problems.push(problem);
                        let key = (kind, key);
                        if let Some(object) = last_good.get(&key) {
                            self.objects.entry(key).or_insert_with(|| object.clone());
                        }
                    }
                    Manifest::Nameless { field, message } => {
                        let field = format!("document {}: {field}", i + 1);
                        self.problems.push(file_problem(name, &field, message, "it is passed over; mend it"));
                    }
                }
            }
        }
    }

    fn put(&mut self, name: &str, object: Object) {
        let key = (object.kind(), object.key().clone());
        if let Some(other) = self.objects.insert(key, object) {
            let message = format!("{} {} is there twice", other.kind(), other.key());
            let remedy = "the last one is used; remove the others";
            self.problems.push(file_problem(name, "metadata.name", message, remedy));
        }
    }
}

fn file_problem(file: &str, field: &str, message: String, remedy: &str) -> Problem {
    Problem {
        object: ObjectRef { kind: ObjectKind::File, namespace: "".into(), name: file.into() },
        field: field.to_owned(),
        message,
        remedy: remedy.to_owned(),
    }
}

fn reference((kind, key): &Key) -> ObjectRef {
    ObjectRef { kind: *kind, namespace: key.namespace.clone(), name: key.name.clone() }
}

/// Spares parsing a file that did not change. Not worth more than 64 bits: an edit that collides by chance is rarer
/// than a broken disk.
fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
