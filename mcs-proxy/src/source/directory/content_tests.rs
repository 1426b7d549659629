use super::*;
use crate::source::testing_scope;

fn service(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    )
}

fn files(contents: &[(&str, &str)]) -> Files {
    contents.iter().map(|&(name, text)| (name.to_owned(), Ok(text.as_bytes().to_vec()))).collect()
}

/// Events in short: `+ serve 10.13.0.1`, `- serve`, `! <problem>`, `ok <object>`. Empty lists of what few tests have go
/// unmentioned.
fn short(events: Vec<Event>) -> Vec<String> {
    let object = |object: &Object| match object {
        Object::Service(service) => format!("{} {}", service.key.name, service.cluster_ips[0]),
        Object::EndpointSlice(_) | Object::ServiceImport(_) | Object::Node(_) | Object::Settings(_) => {
            object.key().name.to_string()
        }
    };
    let line = |event| match event {
        Event::Applied(applied) => format!("+ {}", object(&applied)),
        Event::Deleted(_, key) => format!("- {}", key.name),
        Event::Replaced(kind, list) => {
            format!("= {kind} {}", list.iter().map(object).collect::<Vec<_>>().join(", "))
        }
        Event::Problem(problem) => format!("! {} {}", problem.object, problem.field),
        Event::Mended(object) => format!("ok {object}"),
    };
    let is_mentioned = |event: &Event| {
        let Event::Replaced(kind, list) = event else { return true };
        matches!(kind, ObjectKind::Service | ObjectKind::EndpointSlice) || !list.is_empty()
    };
    events.into_iter().filter(is_mentioned).map(line).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn a_change_of_files_is_told_as_the_change_of_objects() {
    let (a1, a2, b) = (service("a", "10.13.0.1"), service("a", "10.13.0.2"), service("b", "10.13.0.3"));
    let mut content = Content::new(&testing_scope());
    assert_eq!(
        short(content.start(files(&[("1.yaml", &(a1.clone() + &b))]))),
        ["= Service a 10.13.0.1, b 10.13.0.3", "= EndpointSlice "]
    );
    for (now, expected) in [
        (files(&[("1.yaml", &format!("# the same\n{a1}{b}"))]), vec![]),
        (files(&[("1.yaml", &a1), ("2.yaml", &b)]), vec![]),
        (files(&[("1.yaml", &a2), ("2.yaml", &b)]), vec!["+ a 10.13.0.2"]),
        (files(&[("2.yaml", &b)]), vec!["- a"]),
        (files(&[]), vec!["- b"]),
    ] {
        assert_eq!(short(content.update(now)), expected);
    }
}

#[test]
fn a_broken_file_keeps_its_last_good_content_until_it_is_mended() {
    let (a, b) = (service("a", "10.13.0.1"), service("b", "10.13.0.3"));
    let half = &a[..a.len() - 8];
    let mut content = Content::new(&testing_scope());
    content.start(files(&[("a.yaml", &a), ("b.yaml", &b)]));
    let broken = files(&[("a.yaml", half), ("b.yaml", &service("b", "10.13.0.4"))]);
    assert_eq!(short(content.update(broken)), ["+ b 10.13.0.4", "! File a.yaml (content)"]);
    let still = files(&[("a.yaml", half), ("b.yaml", &b)]);
    assert_eq!(short(content.update(still)), ["+ b 10.13.0.3"], "told once");
    let mended = files(&[("a.yaml", &service("a", "10.13.0.9")), ("b.yaml", &b)]);
    assert_eq!(short(content.update(mended)), ["+ a 10.13.0.9", "ok File a.yaml"]);

    content.update(files(&[("a.yaml", half), ("b.yaml", &b)]));
    assert_eq!(short(content.update(files(&[("b.yaml", &b)]))), ["- a", "ok File a.yaml"], "gone is gone");

    let unreadable = [("b.yaml".to_owned(), Err(io::ErrorKind::PermissionDenied.into()))].into();
    assert_eq!(short(content.update(unreadable)), ["! File b.yaml (content)"]);
    assert_eq!(short(content.update(files(&[("b.yaml", &b)]))), ["ok File b.yaml"]);
}

#[test]
fn an_object_that_is_not_of_its_type_keeps_its_last_good_state_and_its_neighbours_change() {
    let b = |ip| service("b", ip);
    let absurd = service("a", "10.13.0.1").replace("port: 80", "port: [http]");
    let mut content = Content::new(&testing_scope());
    content.start(files(&[("x.yaml", &(service("a", "10.13.0.1") + &b("10.13.0.3")))]));
    assert_eq!(
        short(content.update(files(&[("x.yaml", &(absurd.clone() + &b("10.13.0.4")))]))),
        ["+ b 10.13.0.4", "! Service default/a spec.ports[0].port"]
    );
    assert_eq!(short(content.update(files(&[("x.yaml", &absurd)]))), ["- b"]);
    assert_eq!(
        short(content.update(files(&[("x.yaml", &service("a", "10.13.0.2"))]))),
        ["+ a 10.13.0.2", "ok Service default/a"]
    );
    let mut fresh = Content::new(&testing_scope());
    assert_eq!(
        short(fresh.start(files(&[("x.yaml", &absurd)]))),
        ["= Service ", "= EndpointSlice ", "! Service default/a spec.ports[0].port"]
    );
}

#[test]
fn the_last_file_by_name_has_an_object_that_two_of_them_hold() {
    let (one, two) = (service("a", "10.13.0.1"), service("a", "10.13.0.2"));
    let mut content = Content::new(&testing_scope());
    content.start(files(&[("2.yaml", &two)]));
    let events = content.update(files(&[("1.yaml", &one), ("2.yaml", &two)]));
    let [Event::Applied(object)] = &events[..] else { panic!("{events:?}") };
    let [problem] = &object.problems()[..] else { panic!("{object:?}") };
    assert_eq!(problem.message, "is both in 1.yaml and in 2.yaml");
    assert_eq!(short(events), ["+ a 10.13.0.2"]);
    assert_eq!(short(content.update(files(&[("1.yaml", &one)]))), ["+ a 10.13.0.1"]);

    let twice = one.clone() + &two;
    let events = short(content.update(files(&[("1.yaml", &twice)])));
    assert_eq!(events, ["+ a 10.13.0.2", "! File 1.yaml metadata.name"]);
}

#[test]
fn a_document_that_is_no_object_is_the_files_problem() {
    let mut content = Content::new(&testing_scope());
    let text = service("a", "10.13.0.1") + "---\njust text\n---\nkind: Service\n";
    assert_eq!(
        short(content.start(files(&[("x.yaml", &text)]))),
        [
            "= Service a 10.13.0.1",
            "= EndpointSlice ",
            "! File x.yaml document 2: kind",
            "! File x.yaml document 3: metadata.name",
        ]
    );
}

#[test]
fn a_directory_that_goes_away_leaves_its_content() {
    let a = service("a", "10.13.0.1");
    let mut content = Content::new(&testing_scope());
    content.start(files(&[("a.yaml", &a)]));
    let error = || io::Error::from(io::ErrorKind::NotFound);
    assert_eq!(short(content.unreadable("/manifests", &error())), ["! File /manifests (directory)"]);
    assert_eq!(short(content.unreadable("/manifests", &error())), NONE);
    assert_eq!(short(content.update(files(&[("a.yaml", &a)]))), ["ok File /manifests"]);
}

#[test]
fn of_nodes_and_config_maps_only_our_own_are_read() {
    let node = |name: &str| format!("---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}\n");
    let config_map = |namespace: &str, mode: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings, namespace: {namespace}}}, data: {{mode: {mode}}}}}\n"
        )
    };
    let others =
        node("member2-node-2") + &config_map("default", "senseless") + &config_map("kube-system", "[]");
    let ours = node("member2-node-1") + &config_map("mcs-proxy", "drain");
    let mut content = Content::new(&testing_scope());
    let told = short(content.start(files(&[("1.yaml", &(others.clone() + &ours))])));
    assert_eq!(told[2..], ["= Node member2-node-1", "= ConfigMap settings"]);
    assert_eq!(short(content.update(files(&[("1.yaml", &others)]))), ["- member2-node-1", "- settings"]);
}
