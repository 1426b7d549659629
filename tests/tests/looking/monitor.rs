//! `monitor`, beside real traffic.

use crate::{
    stage::{SERVICE_PORT, Stage, VIP, v4, v6},
    watcher::Watcher,
};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy::dataplane::{
    pins::PinDir,
    sys::{Access, MappedWords},
};
use mcs_proxy_ebpf::abi::{EVENTS, MapName};
use mcs_proxy_tests::{client, karmada::Service};
use serde_json::Value;
use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// How many events the programs have told.
struct Told(MappedWords);

impl Told {
    fn of(stage: &Stage) -> Result<Self> {
        let dir = PinDir::new(stage.daemon.pin_dir());
        Ok(Self(dir.map_words(MapName::Events, Access::ReadOnly)?))
    }

    fn count(&self) -> u64 {
        self.0.read(0).unwrap()
    }
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap_or("lost")).collect()
}

#[test]
fn a_connection_is_told_of_from_its_first_packet_to_its_last_with_the_daemon_dead() -> Result<()> {
    let mut stage = Stage::new()?;
    // It writes the names a moment after the maps.
    stage.daemon.wait_for_services("names", |rows| rows.iter().all(|row| row.name == "serve"))?;
    stage.daemon.crash()?;
    // Both hear everything.
    let listeners = [(); 2].map(|()| Watcher::listen(&stage.daemon, &["-o", "json", "--count", "6"]));
    for service in [v4()?, v6()?] {
        let backend = client::http(&stage.client.namespace, service, 1)?[0];
        for listener in &listeners {
            let listener = listener.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let lines = listener.until(|line| line["event"] == "closed")?;
            assert_eq!(kinds(&lines), ["new", "reply", "closed"]);
            for line in &lines {
                assert_eq!(line["service"], "default/serve");
                assert_eq!(line["backend"], backend.to_string());
                assert_eq!(line["vip"], service.ip().to_string());
                ensure!(line["cluster"] == "member1" || line["cluster"] == "member2", "{line:#}");
                ensure!(line["client_port"].is_number() && line["interface"].is_number(), "{line:#}");
            }
            assert_eq!(lines[2]["reset"], false);
        }
    }
    for listener in listeners {
        assert_eq!(listener?.rest()?.len(), 0, "six were asked for");
    }
    Ok(())
}

#[test]
fn what_is_rejected_or_passed_is_told_with_its_reason_to_whoever_asks_for_it() -> Result<()> {
    let stage = Stage::new()?;
    let all = Watcher::listen(&stage.daemon, &["--verdict", "rejected,passed"])?;
    let mine =
        Watcher::listen(&stage.daemon, &["-o", "json", "--verdict", "rejected", "--client", "10.12.0.9"])?;
    let other = Watcher::listen(&stage.daemon, &["-o", "json", "--client", "10.12.0.8", "--count", "1"])?;
    let empty = Service::new(
        "empty",
        "member2",
        &["10.13.0.7"],
        &[mcs_proxy_tests::karmada::Port::new("", "TCP", 80)],
    )?;
    stage.manifests.service(&empty.annotated("enabled", "true"))?;
    let mut stage = stage;
    stage.daemon.wait_for_services("the empty Service", |rows| rows.iter().any(|row| row.name == "empty"))?;
    let refused: SocketAddr = "10.13.0.7:80".parse()?;
    let failure = stage.client.namespace.run(move || {
        anyhow::Ok(
            TcpStream::connect_timeout(&refused, Duration::from_secs(5)).err().map(|error| error.kind()),
        )
    })?;
    assert_eq!(failure, Some(std::io::ErrorKind::ConnectionRefused));
    // What is served is told to neither.
    client::http(&stage.client.namespace, v4()?, 1)?;
    let told = mine.json()?;
    assert_eq!((&told["event"], &told["verdict"]), (&"rejected".into(), &"rejected".into()));
    assert_eq!((&told["vip"], &told["service"]), (&"10.13.0.7".into(), &"default/empty".into()));
    ensure!(told.get("backend").is_none(), "{told:#}");
    let line = all.line()?;
    for words in ["rejected  TCP   10.12.0.9:", "-> 10.13.0.7:80  default/empty", "rejected: no endpoint"] {
        ensure!(line.contains(words), "no `{words}`: {line}");
    }
    drop(other);
    Ok(())
}

#[test]
fn the_switch_goes_off_by_itself_when_the_last_listener_is_gone() -> Result<()> {
    let stage = Stage::new()?;
    let told = Told::of(&stage)?;
    // Connections: a datagram from a port that was used before is of the flow from then, and no news.
    client::http(&stage.client.namespace, v4()?, 3)?;
    assert_eq!(told.count(), 0, "nobody has ever listened");
    let [one, other] = [(); 2].map(|()| Watcher::listen(&stage.daemon, &["-o", "json", "--verdict", "new"]));
    client::http(&stage.client.namespace, v4()?, 1)?;
    ensure!(one?.json()?["event"] == "new", "one of two is killed");
    let other = other?;
    ensure!(other.json()?["event"] == "new");
    assert_eq!(told.count(), 1, "and that it was answered nobody has asked");
    // Longer than a lease: the other one keeps it up.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        client::http(&stage.client.namespace, v4()?, 1)?;
        ensure!(other.json()?["event"] == "new");
    }
    drop(other);
    let start = Instant::now();
    loop {
        let before = told.count();
        client::http(&stage.client.namespace, v4()?, 1)?;
        if told.count() == before {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "events are still told");
    }
    Ok(())
}

#[test]
fn events_that_come_too_fast_are_counted() -> Result<()> {
    let stage = Stage::new()?;
    let told = Told::of(&stage)?;
    let listener = Watcher::listen(&stage.daemon, &["-o", "json", "--verdict", "new"])?;
    let signal = |name: &str| -> Result<()> {
        let status = std::process::Command::new("kill").args([name, &listener.id().to_string()]).status()?;
        ensure!(status.success());
        Ok(())
    };
    // Another keeps the switch on while the first one hears nothing.
    let other = Watcher::listen(&stage.daemon, &["-o", "json", "--verdict", "new"])?;
    signal("-STOP")?;
    // A port that a socket has had before is no new flow.
    let flows = u64::from(EVENTS) + 2000;
    let vip: SocketAddr = SocketAddr::new(VIP.parse()?, SERVICE_PORT);
    stage.client.namespace.run(move || {
        for _ in 0..flows {
            std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", vip)?;
        }
        anyhow::Ok(())
    })?;
    let count = told.count();
    signal("-CONT")?;
    ensure!(count > u64::from(EVENTS), "{count} of {flows} told");
    let mut heard = 0;
    let mut lost = 0;
    while heard + lost < count {
        let line = listener.json().with_context(|| format!("{heard} heard and {lost} lost of {count}"))?;
        match line["lost"].as_u64() {
            Some(more) => lost += more,
            None => heard += 1,
        }
    }
    ensure!(
        lost >= count.saturating_sub(u64::from(EVENTS)) && heard > 0,
        "{heard} heard, {lost} lost of {count}"
    );
    drop(other);
    Ok(())
}
