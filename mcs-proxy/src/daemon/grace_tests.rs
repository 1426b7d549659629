use super::*;
use crate::model::testing::{endpoint, key, service, slice};

const TIME: Duration = Duration::from_secs(2);

struct Story {
    begin: Instant,
    model: Model,
    grace: Grace,
}

impl Story {
    /// `serve` with these slices, each of one endpoint.
    fn new(slices: &[&str]) -> Self {
        let mut story = Self { begin: Instant::now(), model: Model::default(), grace: Grace::new(TIME) };
        story.at(0, Event::Applied(Object::Service(service("serve", "10.13.0.1"))));
        for name in slices {
            story.at(0, put(name, "ready"));
        }
        story
    }

    fn at(&mut self, millis: u64, event: Event) {
        let now = self.begin + Duration::from_millis(millis);
        if let Some(event) = self.grace.withhold(event, &self.model, now) {
            self.model.apply(event);
        }
        self.pass(millis);
    }

    fn pass(&mut self, millis: u64) {
        for event in self.grace.release(&self.model, self.begin + Duration::from_millis(millis)) {
            self.model.apply(event);
        }
    }

    fn slices(&self) -> Vec<&str> {
        self.model.slices_of(&key("serve")).map(|slice| &*slice.key.name).collect()
    }
}

fn put(name: &str, condition: &str) -> Event {
    let mut one = slice(name, "serve", "local", &[]);
    one.endpoints = vec![endpoint("10.12.0.6", condition)];
    Event::Applied(Object::EndpointSlice(one))
}

fn delete(name: &str) -> Event {
    Event::Deleted(ObjectKind::EndpointSlice, key(name))
}

fn list(names: &[&str]) -> Event {
    let objects =
        names.iter().map(|name| Object::EndpointSlice(slice(name, "serve", "local", &["10.12.0.6"])));
    Event::Replaced(ObjectKind::EndpointSlice, objects.collect())
}

#[test]
fn the_last_slice_of_a_service_is_kept_for_the_grace() {
    let mut story = Story::new(&["a", "b"]);
    story.at(100, delete("a"));
    assert_eq!(story.slices(), ["b"], "another one backs the Service");
    story.at(200, delete("b"));
    story.pass(2199);
    assert_eq!(story.slices(), ["b"]);
    assert_eq!(story.grace.due(), Some(story.begin + Duration::from_millis(2200)));
    story.pass(2200);
    assert_eq!((story.slices(), story.grace.due()), (vec![], None));
}

/// As Karmada 1.18 does with a MultiClusterService: gone for a second, then there under another name.
#[test]
fn a_slice_that_comes_instead_ends_the_grace() {
    let mut story = Story::new(&["a"]);
    story.at(100, delete("a"));
    story.at(900, put("empty", "dying"));
    assert_eq!(story.slices(), ["a", "empty"], "nobody serves behind that one");
    story.at(1100, put("anew", "ready"));
    assert_eq!((story.slices(), story.grace.due()), (vec!["anew", "empty"], None));
}

#[test]
fn the_same_slice_again_is_the_one_that_counts() {
    let mut story = Story::new(&["a"]);
    story.at(100, delete("a"));
    story.at(1100, put("a", "ready"));
    story.pass(5000);
    assert_eq!(story.slices(), ["a"]);
    story.at(5000, delete("a"));
    story.at(5100, put("a", "down"));
    story.at(5200, delete("a"));
    assert_eq!(story.slices(), <[&str; 0]>::default(), "emptied, then deleted: nothing to keep");
}

#[test]
fn without_its_service_nothing_is_kept() {
    let mut story = Story::new(&["a"]);
    story.at(100, delete("a"));
    story.at(200, Event::Deleted(ObjectKind::Service, key("serve")));
    assert_eq!((story.slices(), story.grace.due()), (vec![], None));
    let mut story = Story::new(&["a"]);
    story.at(100, Event::Deleted(ObjectKind::Service, key("serve")));
    story.at(200, delete("a"));
    assert_eq!(story.slices(), <[&str; 0]>::default());
}

#[test]
fn a_list_without_any_slice_of_the_service_is_a_deletion_of_all() {
    let mut story = Story::new(&["a", "b"]);
    story.at(100, list(&[]));
    assert_eq!(story.slices(), ["a", "b"]);
    story.at(500, list(&["c"]));
    assert_eq!(story.slices(), ["c"]);
    story.at(600, list(&[]));
    story.at(700, list(&[]));
    assert_eq!(story.slices(), ["c"]);
    story.pass(2600);
    assert_eq!(story.slices(), <[&str; 0]>::default());
}

#[test]
fn no_grace_is_no_grace() {
    let mut story = Story::new(&["a"]);
    story.grace = Grace::new(Duration::ZERO);
    story.at(100, delete("a"));
    assert_eq!((story.slices(), story.grace.due()), (vec![], None));
}
