#![expect(clippy::wildcard_enum_match_arm, reason = "anything else fails the test")]

use super::*;
use crate::source::{Reach, channel, testing_scope};
use kube::runtime::watcher;
use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// An API server that answers each request for Services with the next line of a script, and holds back an answer when
/// the script is at its end. Of the other kinds it has no objects, and ServiceImports it does not know.
struct ApiServer {
    kubeconfig: PathBuf,
    task: JoinHandle<()>,
}

/// A status, and a body that a list or a watch has.
type Script = Arc<Mutex<VecDeque<(u16, String)>>>;

impl ApiServer {
    async fn start(name: &str, script: &[(u16, String)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kubeconfig = kubeconfig(name, &format!("http://{}", listener.local_addr().unwrap()));
        let script: Script = Arc::new(Mutex::new(script.iter().cloned().collect()));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&script)));
            }
        });
        Self { kubeconfig, task }
    }

    fn locations(&self) -> Locations {
        Locations { flag: Some(self.kubeconfig.clone()), ..Locations::default() }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.kubeconfig);
    }
}

fn kubeconfig(name: &str, server: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("mcs-proxy-{}-{name}.kubeconfig", std::process::id()));
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}], users: []}}"
    );
    fs::write(&path, text).unwrap();
    path
}

async fn answer(mut stream: TcpStream, script: Script) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let empty = |kind| (200, list(kind, "", &[]));
    let others = [
        ("/multicluster.x-k8s.io", (404, status(404, "NotFound"))),
        ("/endpointslices", empty("EndpointSliceList")),
        ("/nodes?", empty("NodeList")),
        ("/namespaces/mcs-proxy/configmaps?", empty("ConfigMapList")),
    ];
    let other = others.into_iter().find(|(path, _)| head.contains(path));
    let (status, body) = if let Some((_, answer)) = other {
        if head.contains("watch=true") {
            return std::future::pending().await;
        }
        answer
    } else {
        let next = script.lock().unwrap().pop_front();
        let Some(next) = next else { return std::future::pending().await };
        next
    };
    let answer = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn list(kind: &str, version: &str, items: &[String]) -> String {
    format!(
        r#"{{"kind": "{kind}", "apiVersion": "{version}", "metadata": {{"resourceVersion": "7"}}, "items": [{}]}}"#,
        items.join(",")
    )
}

fn services(items: &[String]) -> (u16, String) {
    (200, list("ServiceList", "v1", items))
}

fn service(name: &str, ip: &str) -> String {
    format!(
        r#"{{"metadata": {{"name": "{name}", "namespace": "default", "resourceVersion": "8"}},
            "spec": {{"clusterIP": "{ip}", "ports": [{{"port": 80}}]}}}}"#
    )
}

/// A watch that tells this and ends, after which it is resumed.
fn watch(events: &[(&str, String)]) -> (u16, String) {
    let line = |(kind, object): &(&str, String)| {
        format!("{{\"type\": \"{kind}\", \"object\": {}}}\n", object.replace('\n', " "))
    };
    (200, events.iter().map(line).collect())
}

fn status(code: u16, reason: &str) -> String {
    format!(
        r#"{{"kind": "Status", "apiVersion": "v1", "metadata": {{}}, "status": "Failure", "code": {code},
            "message": "{reason}", "reason": "{reason}"}}"#
    )
}

/// What happens to Services, in short; empty lists of other kinds go unmentioned.
async fn follow_services(server: &ApiServer, count: usize) -> Vec<String> {
    let (sender, mut events) = channel(4, &Reach::default());
    let locations = server.locations();
    let task =
        tokio::spawn(
            async move { run(&locations, &testing_scope(), &Board::new(Duration::ZERO), sender).await },
        );
    let mut told = Vec::new();
    while told.len() < count {
        let event = timeout(Duration::from_secs(30), events.recv()).await.expect("an event in time").unwrap();
        told.push(match event.event {
            Event::Applied(Object::Service(service)) => {
                format!("+ {} {}", service.key.name, service.cluster_ips[0])
            }
            Event::Deleted(_, key) => format!("- {key}"),
            Event::Replaced(ObjectKind::Service, list) => {
                let names: Vec<_> = list.iter().map(|object| &*object.key().name).collect();
                format!("= {}", names.join(" "))
            }
            Event::Replaced(_, list) if list.is_empty() => continue,
            other => panic!("{other:?}"),
        });
    }
    drop(events);
    timeout(Duration::from_secs(30), task).await.expect("an end in time").unwrap().unwrap();
    told
}

#[tokio::test]
async fn a_list_is_told_as_a_whole_and_then_every_change_and_after_410_a_list_again() {
    let (a, b) = (service("a", "10.13.0.1"), service("b", "10.13.0.2"));
    let script = [
        services(&[a.clone(), b.clone()]),
        watch(&[("MODIFIED", service("a", "10.13.0.9")), ("DELETED", b)]),
        watch(&[("ADDED", service("c", "10.13.0.3"))]),
        watch(&[("ERROR", status(410, "Expired"))]),
        services(&[a]),
    ];
    let server = ApiServer::start("relist", &script).await;
    assert_eq!(
        follow_services(&server, 5).await,
        ["= a b", "+ a 10.13.0.9", "- default/b", "+ c 10.13.0.3", "= a"]
    );
}

#[tokio::test]
async fn a_watch_that_is_refused_for_its_version_is_begun_anew_with_a_list() {
    for code in [410, 400] {
        let script = [
            services(&[service("a", "10.13.0.1")]),
            (code, status(code, "Expired")),
            services(&[service("b", "10.13.0.2")]),
            watch(&[("ADDED", service("c", "10.13.0.3"))]),
        ];
        let server = ApiServer::start(&format!("refused-{code}"), &script).await;
        assert_eq!(follow_services(&server, 3).await, ["= a", "= b", "+ c 10.13.0.3"], "{code}");
    }
}

/// Objects have version 8, so that a list of version 3 is from before them.
#[tokio::test]
async fn a_watch_that_was_interrupted_is_resumed_unless_the_storage_was_put_back_meanwhile() {
    let at = |version: u8, items: &[String]| {
        let (status, body) = services(items);
        (status, body.replace("\"7\"", &format!("\"{version}\"")))
    };
    let (a, broken) = ([service("a", "10.13.0.1")], (500, status(500, "InternalError")));
    let script = [
        services(&a),
        broken.clone(),
        at(9, &a),
        watch(&[("ADDED", service("b", "10.13.0.2"))]),
        broken,
        at(3, &a),
        at(3, &a),
        watch(&[("ADDED", service("c", "10.13.0.3"))]),
    ];
    let server = ApiServer::start("put-back", &script).await;
    assert_eq!(follow_services(&server, 4).await, ["= a", "+ b 10.13.0.2", "= a", "+ c 10.13.0.3"]);
}

#[tokio::test]
async fn an_api_server_that_refuses_at_first_is_asked_again() {
    let script = [
        (403, status(403, "Forbidden")),
        (200, "not json".to_owned()),
        services(&[service("a", "10.13.0.1")]),
    ];
    let server = ApiServer::start("refusal", &script).await;
    assert_eq!(follow_services(&server, 1).await, ["= a"]);
}

#[tokio::test]
async fn an_api_server_that_is_not_there_is_no_start_error_and_the_cause_is_told() {
    // Taken and let go of: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let path = kubeconfig(&format!("absent-{scheme}"), &format!("{scheme}://{address}"));
        let locations = Locations { flag: Some(path.clone()), ..Locations::default() };
        let (client, server) = client(&locations).await.unwrap();
        assert_eq!(server, format!("{scheme}://{address}/ (--kubeconfig {})", path.display()));
        let error = Api::<Service>::all(client).list(&Default::default()).await.unwrap_err();
        let said = crate::observe::with_causes(&watcher::Error::InitialListFailed(error));
        assert!(said.contains("Connection refused"), "{said}");
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_kubeconfig_that_is_of_no_use_is_an_error_that_names_it() {
    let broken = kubeconfig("broken", "http://x");
    fs::write(&broken, "users:\n- {name: a, user: {token: topsecret}\nclusters: [").unwrap();
    let empty = kubeconfig("empty", "http://x");
    fs::write(&empty, "{}").unwrap();
    let bad_url = kubeconfig("url", "http://[::");
    let missing = PathBuf::from("/nonexistent/kubeconfig");
    for path in [&missing, &broken, &empty, &bad_url] {
        let name = path.display().to_string();
        for (locations, said) in [
            (
                Locations { flag: Some(path.clone()), ..Locations::default() },
                format!("--kubeconfig {name}: "),
            ),
            (
                Locations { variable: Some(path.clone().into()), home: Some(missing.clone()), flag: None },
                format!("KUBECONFIG={name}: "),
            ),
            (Locations { home: Some(path.clone()), ..Locations::default() }, format!("{name}: ")),
        ] {
            let (sender, _events) = channel(1, &Reach::default());
            let error = run(&locations, &testing_scope(), &Board::new(Duration::ZERO), sender)
                .await
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(&said), "{error}");
            assert!(error.contains("--kubeconfig PATH"), "{error}");
            assert!(!error.contains('\n') && !error.contains("topsecret"), "{error}");
        }
    }
    [broken, empty, bad_url].iter().for_each(|path| fs::remove_file(path).unwrap());

    let (sender, _events) = channel(1, &Reach::default());
    let nowhere = run(&Locations::default(), &testing_scope(), &Board::new(Duration::ZERO), sender)
        .await
        .unwrap_err()
        .to_string();
    assert!(nowhere.contains("not in a cluster's pod") && nowhere.contains("--kubeconfig"), "{nowhere}");
}
