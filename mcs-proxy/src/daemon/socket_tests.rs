use super::*;
use crate::explain::Target;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("mcs-proxy-socket-{}-{name}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn nobody() -> Onlooker {
    Arc::new(|| Response::Error("nobody looks on".into()))
}

fn request() -> Request {
    let target = Target::Service { namespace: "default".into(), name: "serve".into() };
    Request::Explain(Query { target, client: None })
}

async fn exchange(run_dir: PathBuf) -> Response {
    task::spawn_blocking(move || ask(&run_dir, &request())).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_request_reaches_the_writer_and_its_answer_the_client_also_where_a_dead_socket_lay() {
    let place = Place::new("answer");
    for _ in 0..2 {
        let mut requests = serve(&place.0, nobody()).unwrap();
        let client = task::spawn(exchange(place.0.clone()));
        let (asked, answer) = requests.recv().await.unwrap();
        assert_eq!(asked, request());
        answer.send(Response::Error("unknown".into())).unwrap();
        assert_eq!(client.await.unwrap(), Response::Error("unknown".into()));
        let mode = fs::metadata(path(&place.0)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_reaches_nobody() {
    let place = Place::new("nonsense");
    let mut requests = serve(&place.0, nobody()).unwrap();
    for nonsense in ["\n", "{\"explode\":{}}\n", &"x".repeat(10_000)] {
        let mut stream = UnixStream::connect(path(&place.0)).await.unwrap();
        // The server may have hung up before all of it was written.
        let _ = stream.write_all(nonsense.as_bytes()).await;
        let mut answer = String::new();
        let _ = BufReader::new(&mut stream).read_line(&mut answer).await;
        assert!(answer.contains("no request that this version knows") || nonsense.len() > 4096, "{answer}");
    }
    assert!(requests.try_recv().is_err());
}

#[test]
fn without_a_daemon_nothing_answers() {
    let place = Place::new("nobody");
    let failure = ask(&place.0, &request()).unwrap_err();
    assert!(
        matches!(&failure, AskError::NoAnswer { source, .. } if source.kind() == io::ErrorKind::NotFound),
        "{failure}"
    );
}

#[tokio::test]
async fn how_the_daemon_is_can_be_asked_while_the_writer_hangs() {
    let place = Place::new("status");
    let _requests = serve(&place.0, nobody()).unwrap();
    let run_dir = place.0.clone();
    let told = task::spawn_blocking(move || ask(&run_dir, &Request::Status)).await.unwrap().unwrap();
    assert_eq!(told, Response::Error("nobody looks on".into()));
}
