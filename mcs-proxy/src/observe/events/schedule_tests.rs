use super::*;
use crate::model::{ObjectKind, ObjectRef};

const JITTER: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

fn problem(name: &str, field: &str) -> Problem {
    Problem {
        object: ObjectRef { kind: ObjectKind::EndpointSlice, namespace: "default".into(), name: name.into() },
        field: field.into(),
        message: "x".into(),
        remedy: "mend it".into(),
    }
}

fn arisen(problems: &[Problem]) -> ProblemNews {
    ProblemNews { arisen: problems.to_vec(), solved: vec![] }
}

fn solved(problems: &[Problem]) -> ProblemNews {
    ProblemNews { arisen: vec![], solved: problems.to_vec() }
}

#[test]
fn an_event_is_due_within_the_jitter_and_again_each_hour_until_its_problem_is_solved() {
    let start = Instant::now();
    let mut schedule = Schedule::new(JITTER);
    let one = problem("a", "addressType");
    schedule.note(&arisen(std::slice::from_ref(&one)), start, || 0.5);
    assert_eq!(schedule.due(), Some(start + JITTER / 2));
    assert_eq!(schedule.first(start), None);
    let (topic, note) = schedule.first(start + JITTER).unwrap();
    assert_eq!(note, "addressType: x; mend it");

    schedule.settled(&topic, start + JITTER, HOUR, 0.1);
    assert_eq!(schedule.first(start + HOUR), None);
    assert_eq!(schedule.due(), Some(start + JITTER + HOUR + JITTER / 10));
    assert!(schedule.first(start + HOUR + 2 * JITTER).is_some());

    schedule.note(&solved(&[one]), start, || 0.5);
    assert_eq!(schedule.due(), None);
    schedule.settled(&topic, start, HOUR, 0.1);
    assert_eq!(schedule.due(), None, "it was solved while it was written");
}

#[test]
fn endpoints_of_a_slice_are_one_event_that_lasts_as_long_as_any_of_them_is_wrong() {
    let start = Instant::now();
    let mut schedule = Schedule::new(Duration::ZERO);
    let [a, b] = ["endpoints[0].addresses", "endpoints[1].addresses"].map(|field| problem("a", field));
    schedule.note(&arisen(&[a.clone(), b.clone()]), start, || 0.0);
    let (topic, note) = schedule.first(start).unwrap();
    assert_eq!(note, "endpoints[0].addresses: x; mend it | endpoints[1].addresses: x; mend it");
    schedule.settled(&topic, start, HOUR, 0.0);
    assert_eq!(schedule.first(start), None, "one Event");
    schedule.note(&solved(&[a]), start, || 0.0);
    assert!(schedule.due().is_some());
    schedule.note(&solved(&[b]), start, || 0.0);
    assert_eq!(schedule.due(), None);
}

#[test]
fn a_flood_of_problems_is_bounded_and_makes_room_as_they_are_solved() {
    let start = Instant::now();
    let mut schedule = Schedule::new(Duration::ZERO);
    let many: Vec<_> = (0..2000).map(|i| problem(&format!("s{i:04}"), "metadata")).collect();
    schedule.note(&arisen(&many), start, || 0.0);
    assert_eq!(schedule.entries.len(), MOST);
    schedule.note(&solved(&many), start, || 0.0);
    assert_eq!(schedule.entries.len(), 0);
    schedule.note(&arisen(&many[1000..1001]), start, || 0.0);
    assert!(schedule.first(start).is_some());
}
