//! UDP sockets of host processes, whose backends come and go.

use super::{PATIENCE, emptied, mapped};
use crate::stage::{PODS, PODS_V6, SERVICE_PORT, Stage, VIP, service, slice, v4, v6};
use anyhow::{Context as _, Result, ensure};
use mcs_proxy_tests::{Cgroup, POD_PORT, client};
use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Stdio,
};

fn connected(stage: &Stage, to: SocketAddr) -> Result<UdpSocket> {
    stage.node.namespace.run(move || -> Result<_> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        Ok(socket)
    })
}

/// Empties the slices of the pod in member1 (0) or member2 (1).
fn take_away(stage: &mut Stage, provider: usize) -> Result<()> {
    stage.manifests.slice(&emptied(provider, PODS[provider])?)?;
    stage.manifests.slice(&emptied(provider, PODS_V6[provider])?)?;
    stage.wait_for_endpoints(1)
}

fn index_of(pod: IpAddr) -> usize {
    let is = |name: &&str| name.parse::<IpAddr>().unwrap() == pod;
    PODS.iter().position(&is).or_else(|| PODS_V6.iter().position(is)).unwrap()
}

/// How the next receive fails, if it does.
fn failure(socket: &UdpSocket) -> Option<ErrorKind> {
    socket.recv(&mut [0; 2048]).err().map(|error| error.kind())
}

#[test]
fn a_connected_socket_is_closed_when_its_backend_is_gone_and_no_other_socket_is() -> Result<()> {
    for vip in [v4()?, v6()?, mapped(v4()?)] {
        let mut stage = Stage::new()?;
        // Two sockets of the Service have both backends between them.
        let sockets = [connected(&stage, vip)?, connected(&stage, vip)?];
        let pods = [client::udp_ask(&sockets[0], vip, "a")?, client::udp_ask(&sockets[1], vip, "b")?];
        ensure!(pods[0] != pods[1], "{pods:?}");
        // These speak to the same pod by its own address: one on this node, one elsewhere.
        let direct = SocketAddr::new(pods[0], POD_PORT);
        let ours = connected(&stage, direct)?;
        let elsewhere = client::udp_socket(&stage.client.namespace, direct)?;

        take_away(&mut stage, index_of(pods[0]))?;
        assert_eq!(failure(&sockets[0]), Some(ErrorKind::ConnectionAborted), "{vip}");
        assert_eq!(client::udp_ask(&sockets[1], vip, "stays")?, pods[1]);
        assert_eq!(client::udp_ask(&ours, direct, "stays")?, pods[0]);
        assert_eq!(client::udp_ask(&elsewhere, direct, "stays")?, pods[0]);
        // Its program connects again, with the same socket if it likes.
        let again = sockets[0].try_clone()?;
        stage.node.namespace.run(move || again.connect(vip))?;
        assert_eq!(client::udp_ask(&sockets[0], vip, "again")?, pods[1]);
        stage.daemon.wait_for_log("connected UDP sockets whose endpoint is gone: closed")?;
    }
    Ok(())
}

#[test]
fn a_connected_socket_stays_with_a_backend_that_takes_no_new_flows_until_the_service_is_opted_out()
-> Result<()> {
    let mut stage = Stage::new()?;
    let vip = v4()?;
    let socket = connected(&stage, vip)?;
    let pod = client::udp_ask(&socket, vip, "first")?;
    for address in [PODS, PODS_V6].map(|pods| pods[index_of(pod)]) {
        let mut slice = slice(index_of(pod), address)?;
        slice.endpoints.iter_mut().for_each(|endpoint| endpoint.terminating = true);
        stage.manifests.slice(&slice)?;
    }
    stage.wait_for_endpoints(1)?;
    assert_eq!(client::udp_ask(&socket, vip, "second")?, pod);
    stage.manifests.remove("service-serve")?;
    assert_eq!(failure(&socket), Some(ErrorKind::ConnectionAborted), "opted out: what is beneath us has it");
    Ok(())
}

#[test]
fn one_socket_talks_to_two_services_and_knows_them_apart() -> Result<()> {
    const OTHER: &str = "10.13.0.99";
    let mut stage = Stage::new()?;
    let mut other = service()?.annotated("enabled", "true");
    (other.name, other.cluster_ips) = ("other".into(), vec![OTHER.parse()?]);
    stage.manifests.service(&other)?;
    let mut only = slice(1, PODS[1])?;
    (only.name, only.service) = ("other-1".into(), "other".into());
    stage.manifests.slice(&only)?;
    stage.daemon.wait_for_services("the other Service", |rows| {
        rows.iter().any(|row| row.name == "other" && row.endpoints.iter().any(|endpoint| endpoint.in_maps))
    })?;
    let vips = [v4()?, SocketAddr::new(OTHER.parse()?, SERVICE_PORT)];
    stage.node.namespace.run(move || -> Result<_> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        for round in 0..6 {
            let vip = vips[round % 2];
            socket.send_to(b"who", vip)?;
            assert_eq!(socket.recv_from(&mut [0; 2048])?.1, vip);
        }
        // Connected to one, then to the other, then to what is none of ours.
        for vip in vips {
            socket.connect(vip)?;
            client::udp_ask(&socket, vip, "connected")?;
            assert_eq!(socket.peer_addr()?, vip);
        }
        let pod = SocketAddr::new(PODS[1].parse()?, POD_PORT);
        socket.connect(pod)?;
        client::udp_ask(&socket, pod, "direct")?;
        assert_eq!(socket.peer_addr()?, pod);
        Ok(())
    })
}

/// A program in a cgroup, with a socket that is connected once: each line it reads is a question, each that it prints
/// the answer.
const CLIENT: &str = r#"
import os, socket, sys
cgroup, address, port = sys.argv[1:]
with open(cgroup + "/cgroup.procs", "w") as processes:
    processes.write(str(os.getpid()))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.connect((address, int(port)))
for question in sys.stdin:
    client.send(question.encode())
    print(client.recv(2048).decode().replace("\n", " "), flush=True)
"#;

#[test]
fn with_all_a_pods_connected_socket_goes_by_packets_and_moves_on() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let path = cgroup.path().display().to_string();
    let mut stage = Stage::with(
        |service| service.annotated("enabled", "true"),
        &["--socket-path", "all", "--cgroup", &path],
    )?;
    let mut child = stage
        .client
        .namespace
        .command("python3")?
        .args(["-c", CLIENT, &path, VIP, &SERVICE_PORT.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    let mut questions = child.stdin.take().context("stdin")?;
    let mut answers = BufReader::new(child.stdout.take().context("stdout")?).lines();
    let mut ask = || {
        questions.write_all(b"who\n")?;
        client::who(&answers.next().context("the client ended")??)
    };
    let first = ask()?;
    assert_eq!(ask()?, first);
    assert_eq!(stage.daemon.connections()?, 1, "a flow of the packet path");
    take_away(&mut stage, index_of(first))?;
    assert_ne!(ask()?, first);
    drop(questions);
    ensure!(child.wait()?.success());
    Ok(())
}
