use super::{Catalog, Journal};
use crate::{
    desired::{Flags, FrontendKey, Resolver},
    model::{
        Model, NamespacedName, ObjectKind,
        testing::{service, slice},
    },
    observe::inventory::{Inventory, Item},
    source::{Event, Object},
};
use mcs_proxy_ebpf::abi::Algorithm;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// A daemon's core with its catalog's file.
struct Core {
    model: Model,
    resolver: Resolver,
    journal: Journal,
    /// What is there, and what is being made to take its place.
    file: String,
    partial: String,
    is_partial: bool,
    inventory: Inventory,
    partial_inventory: Inventory,
    batches: usize,
}

impl Core {
    fn new(objects: Vec<Object>) -> Self {
        let flags = Flags {
            cluster_name: "member2".into(),
            node_name: "node-1".into(),
            default_algorithm: Algorithm::RoundRobin,
            all_services: false,
            tier_hold: Duration::ZERO,
            eject_unanswered: false,
        };
        let mut core = Self {
            model: Model::default(),
            resolver: Resolver::new(flags),
            journal: Journal::default(),
            file: String::new(),
            partial: String::new(),
            is_partial: false,
            inventory: Inventory::default(),
            partial_inventory: Inventory::default(),
            batches: 0,
        };
        for object in objects {
            core.take(Event::Applied(object));
        }
        core.journal.start_over();
        core
    }

    fn take(&mut self, event: Event) {
        let affected: BTreeSet<_> = self.model.apply(event);
        let changes = self.resolver.update(&self.model, &affected, Instant::now());
        self.journal.note(&changes);
    }

    fn step(&mut self) {
        let Some(batch) = self.journal.proceed(&self.model, &self.resolver, 1) else { return };
        self.batches += 1;
        let text = str::from_utf8(&batch.text).unwrap();
        if batch.starts {
            self.partial.clear();
            self.partial_inventory = Inventory::default();
            self.is_partial = true;
        }
        if self.is_partial {
            self.partial += text;
            self.partial_inventory.follow(&batch);
        } else {
            self.file += text;
            self.inventory.follow(&batch);
        }
        if batch.completes {
            self.file = std::mem::take(&mut self.partial);
            self.inventory = std::mem::take(&mut self.partial_inventory);
            self.is_partial = false;
        }
    }

    fn catch_up(&mut self) {
        while self.journal.is_behind() {
            self.step();
        }
    }

    /// What the file says, and the inventory with it.
    fn read(&self) -> Catalog {
        let catalog = Catalog::of_lines(&self.file).unwrap();
        let inventory = Inventory::of(&catalog);
        let items = |inventory: &Inventory| -> Vec<_> {
            let item = |(key, item): (&FrontendKey, &Item)| {
                (*key, item.service().clone(), item.targets().collect::<Vec<_>>())
            };
            inventory.frontends().map(item).collect()
        };
        assert_eq!(items(&self.inventory), items(&inventory));
        assert_eq!(self.inventory.verdicts, inventory.verdicts);
        catalog
    }

    /// As a daemon would write it that starts now.
    fn at_once(&mut self) -> Catalog {
        self.journal.start_over();
        self.catch_up();
        self.read()
    }
}

fn six() -> Vec<Object> {
    (1..=6).map(|i| Object::Service(service(&format!("s{i}"), &format!("10.13.0.{i}")))).collect()
}

fn backed(addresses: &[&str]) -> Event {
    Event::Applied(Object::EndpointSlice(slice("s1-1", "s1", "member1", addresses)))
}

/// Frontends come, go, change their endpoints and pass from one Service to another while the file is made, and after.
#[test]
fn a_file_that_is_made_while_the_maps_change_says_what_one_says_that_is_made_at_once() {
    let put = |name: &str, vip: &str| Event::Applied(Object::Service(service(name, vip)));
    let gone = |name: &str| Event::Deleted(ObjectKind::Service, NamespacedName::new("default", name));
    let changes: [&dyn Fn() -> Vec<Event>; 7] = [
        &|| vec![put("s0", "10.13.0.10")],
        &|| vec![backed(&["10.10.0.6", "10.10.0.7"])],
        &|| vec![gone("s2")],
        &|| vec![put("s6", "10.13.0.9")],
        &|| vec![put("s3", "10.13.0.1")],
        &|| vec![gone("s1")],
        &|| vec![gone("s4"), put("s4", "10.13.0.4"), put("s5", "10.13.0.4"), gone("s5")],
    ];
    for before in 0..=12 {
        for (number, change) in changes.into_iter().enumerate() {
            let mut core = Core::new(six());
            for _ in 0..before {
                core.step();
            }
            for event in change() {
                core.take(event);
            }
            core.catch_up();
            let piecemeal = core.read();
            let at_once = core.at_once();
            assert_eq!(piecemeal, at_once, "change {number} after {before} steps");
            assert!(at_once.frontends.len() >= 5 && at_once.cluster == "member2");
        }
    }
}

#[test]
fn a_change_appends_its_own_lines_and_many_make_the_file_anew() {
    let mut core = Core::new(six());
    core.catch_up();
    let before = core.file.clone();
    core.take(backed(&["10.10.0.6"]));
    core.catch_up();
    let appended = core.file.strip_prefix(&before).unwrap();
    assert_eq!(appended.lines().count(), 1, "{appended}");
    let half = &core.file[..core.file.len() - 5];
    assert_eq!(
        Catalog::of_lines(half).unwrap(),
        Catalog::of_lines(&before).unwrap(),
        "a line that is being written"
    );
    for round in 0..3000_u32 {
        core.take(backed(&[&format!("10.10.{}.{}", round / 250, 1 + round % 250)]));
        core.catch_up();
    }
    assert!(core.file.lines().count() < 1100, "{}", core.file.lines().count());
    let read = core.read();
    assert_eq!(read, core.at_once());
    assert!(Catalog::of_lines("{\"half\n").is_err());
}
