#![expect(clippy::wildcard_enum_match_arm, reason = "anything else fails the test")]

use super::*;
use crate::{
    model::ObjectKind,
    source::{KINDS, Object, Reach, Told, channel, testing_scope},
};
use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// A directory of this test's own; gone with it.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mcs-proxy-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running source.
struct Source {
    events: mpsc::Receiver<Told>,
    task: JoinHandle<Result<(), DirectoryError>>,
}

impl Source {
    /// Returns when the first lists are in, and how many Services there are.
    async fn start(directory: &Path) -> (Self, usize) {
        let (sender, events) = channel(16, &Reach::default());
        let directory = directory.to_owned();
        let task = tokio::spawn(async move { run(&directory, &testing_scope(), sender).await });
        let mut source = Self { events, task };
        let Event::Replaced(ObjectKind::Service, services) = source.next().await else { panic!() };
        for kind in &KINDS[1..] {
            let Event::Replaced(told, _) = source.next().await else { panic!() };
            assert_eq!(told, *kind);
        }
        (source, services.len())
    }

    async fn next(&mut self) -> Event {
        timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event in time").unwrap().event
    }

    /// The address that a Service has from now on.
    async fn address(&mut self) -> String {
        match self.next().await {
            Event::Applied(Object::Service(service)) => service.cluster_ips[0].to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn manifest(ip: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{name: serve}}, spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}}}\n"
    )
}

#[tokio::test]
async fn files_are_followed_however_they_are_written() {
    let directory = TempDir::new();
    let file = directory.join("serve.yaml");
    fs::write(&file, manifest("10.13.0.1")).unwrap();
    fs::write(directory.join("README.md"), "not a manifest: [").unwrap();
    fs::write(directory.join(".serve.yaml.swp"), "nor is this: [").unwrap();
    fs::create_dir(directory.join("folder.yaml")).unwrap();
    let (mut source, services) = Source::start(&directory.0).await;
    assert_eq!(services, 1);

    fs::write(&file, manifest("10.13.0.2")).unwrap();
    assert_eq!(source.address().await, "10.13.0.2", "in place");

    fs::write(directory.join("serve.yaml.tmp"), manifest("10.13.0.3")).unwrap();
    fs::rename(directory.join("serve.yaml.tmp"), &file).unwrap();
    assert_eq!(source.address().await, "10.13.0.3", "renamed over, as editors do");

    fs::write(&file, "kind: Service\nmetadata: {").unwrap();
    let Event::Problem(problem) = source.next().await else { panic!() };
    assert_eq!(problem.object.to_string(), "File serve.yaml");
    fs::write(&file, manifest("10.13.0.4")).unwrap();
    assert_eq!(source.address().await, "10.13.0.4", "mended");
    assert_eq!(source.next().await, Event::Mended(problem.object));

    fs::remove_file(&file).unwrap();
    let Event::Deleted(ObjectKind::Service, key) = source.next().await else { panic!() };
    assert_eq!(key.to_string(), "default/serve");
}

#[tokio::test]
async fn a_file_that_is_written_in_two_goes_is_read_whole() {
    let directory = TempDir::new();
    let path = directory.join("serve.yaml");
    let first = manifest("10.13.0.1");
    fs::write(&path, format!("{first}---\n{}", manifest("10.13.0.1").replace("serve", "other"))).unwrap();
    let (mut source, services) = Source::start(&directory.0).await;
    assert_eq!(services, 2);

    let mut file = fs::File::create(&path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    // Long enough for a reader that waits for quiet alone; what it would read is sound, but lacks the second object.
    tokio::time::sleep(Duration::from_millis(500)).await;
    file.write_all(format!("---\n{}", manifest("10.13.0.2").replace("serve", "other")).as_bytes()).unwrap();
    drop(file);
    assert_eq!(source.address().await, "10.13.0.2", "and nothing was deleted before");
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_swapped_link() {
    let directory = TempDir::new();
    let version = |name: &str, ip: &str| {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("serve.yaml"), manifest(ip)).unwrap();
        symlink(name, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    };
    version("..1", "10.13.0.1");
    symlink("..data/serve.yaml", directory.join("serve.yaml")).unwrap();
    let (mut source, services) = Source::start(&directory.0).await;
    assert_eq!(services, 1);
    version("..2", "10.13.0.2");
    fs::remove_dir_all(directory.join("..1")).unwrap();
    assert_eq!(source.address().await, "10.13.0.2");
}

#[tokio::test]
async fn a_link_that_leads_nowhere_takes_nothing_away() {
    let directory = TempDir::new();
    let elsewhere = TempDir::new();
    fs::write(elsewhere.join("serve.yaml"), manifest("10.13.0.1")).unwrap();
    symlink(elsewhere.join("serve.yaml"), directory.join("serve.yaml")).unwrap();
    let (mut source, services) = Source::start(&directory.0).await;
    assert_eq!(services, 1);

    fs::remove_file(elsewhere.join("serve.yaml")).unwrap();
    fs::write(directory.join("touch.yaml"), "# a change that the watch sees\n").unwrap();
    let Event::Problem(problem) = source.next().await else { panic!() };
    assert!(problem.to_string().starts_with("File serve.yaml: "), "{problem}");

    fs::write(elsewhere.join("serve.yaml"), manifest("10.13.0.2")).unwrap();
    fs::remove_file(directory.join("touch.yaml")).unwrap();
    assert_eq!(source.address().await, "10.13.0.2");
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_found_again() {
    let parent = TempDir::new();
    let directory = parent.join("manifests");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("serve.yaml"), manifest("10.13.0.1")).unwrap();
    let (mut source, _) = Source::start(&directory).await;

    fs::rename(&directory, parent.join("old")).unwrap();
    let Event::Problem(problem) = source.next().await else { panic!() };
    assert!(problem.object.name.ends_with("/manifests"), "{problem}");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("serve.yaml"), manifest("10.13.0.2")).unwrap();
    loop {
        // It may be seen empty first.
        match source.next().await {
            Event::Applied(Object::Service(service)) => {
                assert_eq!(service.cluster_ips[0].to_string(), "10.13.0.2");
                break;
            }
            Event::Deleted(..) | Event::Mended(_) => {}
            other => panic!("{other:?}"),
        }
    }
    fs::write(directory.join("serve.yaml"), manifest("10.13.0.3")).unwrap();
    loop {
        match source.next().await {
            Event::Applied(Object::Service(service)) => {
                assert_eq!(service.cluster_ips[0].to_string(), "10.13.0.3", "and watched again");
                break;
            }
            Event::Mended(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_missing_directory_is_an_error_that_names_path_and_flag() {
    let parent = TempDir::new();
    fs::write(parent.join("file"), "").unwrap();
    for name in ["missing", "file"] {
        let (sender, _events) = channel(1, &Reach::default());
        let error = run(&parent.join(name), &testing_scope(), sender).await.unwrap_err().to_string();
        assert!(error.contains(&format!("--source directory={}", parent.join(name).display())), "{error}");
    }
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let directory = TempDir::new();
    let (source, _) = Source::start(&directory.0).await;
    let Source { events, task } = source;
    drop(events);
    timeout(Duration::from_secs(20), task).await.unwrap().unwrap().unwrap();
}
