//! How the backend hears that its connection was ended (`state: drop`).

use crate::{
    settings::{SETTINGS, families, set},
    stage::Stage,
};
use anyhow::{Result, ensure};
use mcs_proxy_tests::Pod;
use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Less than what answers waits for a next request.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection with an answer that nobody has read: closed, it is reset.
fn unread(stage: &Stage, vip: SocketAddr) -> Result<TcpStream> {
    stage.client.namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&vip, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"POST / HTTP/1.1\r\nHost: serve\r\nContent-Length: 0\r\n\r\n")?;
        stream.peek(&mut [0])?;
        anyhow::Ok(stream)
    })
}

/// Connections that are open in the pod's network.
fn established(pod: &Pod) -> Result<usize> {
    const ESTABLISHED: &str = "01";
    pod.namespace.run(|| {
        let count = |table: &str| -> Result<usize> {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
            let is_open = |line: &&str| line.split_whitespace().nth(3) == Some(ESTABLISHED);
            Ok(text.lines().filter(is_open).count())
        };
        anyhow::Ok(count("tcp")? + count("tcp6")?)
    })
}

#[test]
fn the_reset_that_a_pod_sends_for_a_connection_that_was_ended_reaches_the_backend() -> Result<()> {
    let mut stage = Stage::with(|service| service.annotated("enabled", "true"), &SETTINGS)?;
    let mut streams = Vec::new();
    for (vip, _) in families()? {
        // One to each pod.
        streams.extend([unread(&stage, vip)?, unread(&stage, vip)?]);
    }
    ensure!(established(&stage.pods[0])? == 2, "{}", established(&stage.pods[0])?);
    set(&stage, "{member1: '{state: drop}'}")?;
    stage.daemon.wait_for_log("reset with their next packet")?;
    ensure!(established(&stage.pods[0])? == 2, "it has heard already");
    drop(streams);
    let start = Instant::now();
    while established(&stage.pods[0])? > 0 {
        ensure!(start.elapsed() < PATIENCE, "the backend has not heard");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
