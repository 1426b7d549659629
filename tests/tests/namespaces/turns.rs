//! 29 connections are 15 and 14, whatever happens to their packets and however they end.

use crate::stage::{PODS, PODS_V6, Stage, v4, v6};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::client::{self, who};
use socket2::SockRef;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

const CONNECTIONS: usize = 29;
/// A SYN is sent again after 1, 2 and 4 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Loses every third SYN that leaves us: its sender must send it again.
const LOSSY: &str = "add table inet lossy; add counter inet lossy lost; \
    add chain inet lossy passing { type filter hook prerouting priority raw; }; \
    add rule inet lossy passing tcp flags & (syn | ack) == syn numgen inc mod 3 == 0 counter name lost drop; ";

#[test]
fn syn_retransmits_resets_and_closes_take_no_turn_of_twenty_nine() -> Result<()> {
    let stage = Stage::new()?;
    stage.node.namespace.nft(LOSSY)?;
    for (service, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
        let before = stage.flows()?;
        let answers = stage.client.namespace.run(move || -> Result<_> {
            // All at once: what is closed and reset meets what begins.
            let all: Vec<_> =
                (0..CONNECTIONS).map(|number| thread::spawn(move || live(service, number))).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>>>()
        })?;
        let tally = client::tally(&answers);
        let shares = pods.map(|pod| tally.get(&pod.parse().unwrap()).copied().unwrap_or(0));
        ensure!(shares == [15, 14] || shares == [14, 15], "{tally:?}");
        assert_eq!(stage.flows()? - before, 29);
    }
    let lost = stage.node.namespace.nft("list counter inet lossy lost")?;
    ensure!(!lost.contains("packets 0 "), "no SYN was lost: {lost}");
    Ok(())
}

/// One connection's life: who answered.
fn live(service: SocketAddr, number: usize) -> Result<std::net::IpAddr> {
    let mut stream = TcpStream::connect_timeout(&service, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let ends_it = ["close", "keep-alive"][number % 2];
    write!(stream, "GET / HTTP/1.1\r\nHost: serve\r\nConnection: {ends_it}\r\n\r\n")?;
    let mut answer = [0; 4096];
    let mut length = 0;
    // Head and body may come apart.
    while !answer[..length].ends_with(b")\n") {
        let more = stream.read(&mut answer[length..])?;
        ensure!(more > 0, "connection {number} ended early");
        length += more;
    }
    // Half of those that are still open are reset, the others closed; the server has closed the rest.
    if number % 4 == 1 {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    who(&String::from_utf8_lossy(&answer[..length]))
}
