//! Packets between two pods of the node that go past its IP stack.

use crate::stage::{PODS, PODS_V6, Stage, v4, v6};
use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use mcs_proxy_tests::{
    Namespace, Node, POD_PORT,
    client::{self, Connection},
};
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// Counts what the node forwards to and from the pods of `serve`: in member1, in member2. As kube-proxy does, it drops
/// what connection tracking calls invalid, so that a conversation of which the host sees half would end.
fn count_forwarded(node: &Node) -> Result<()> {
    let mut rules = "add table inet witness; \
        add counter inet witness remote; add counter inet witness local; \
        add chain inet witness forwarded { type filter hook forward priority 0; };"
        .to_owned();
    for (family, [remote, local]) in [("ip", PODS), ("ip6", PODS_V6)] {
        for (name, pod) in [("remote", remote), ("local", local)] {
            for end in ["saddr", "daddr"] {
                rules +=
                    &format!("add rule inet witness forwarded {family} {end} {pod} counter name {name};");
            }
        }
    }
    rules += "add rule inet witness forwarded ct state invalid drop;";
    node.namespace.nft(&rules).map(drop)
}

fn forwarded(node: &Node, name: &str) -> Result<u64> {
    let text = node.namespace.nft(&format!("list counter inet witness {name}"))?;
    let (_, rest) = text.split_once("packets ").with_context(|| text.clone())?;
    let number = rest.split_whitespace().next().with_context(|| text.clone())?;
    Ok(number.parse()?)
}

/// The host hands packets over for whom it knows the neighbour.
fn introduce(stage: &Stage) -> Result<()> {
    for service in [v4()?, v6()?] {
        client::http(&stage.client.namespace, service, 4)?;
    }
    Ok(())
}

fn is_local(address: IpAddr) -> bool {
    [PODS[1], PODS_V6[1]].contains(&address.to_string().as_str())
}

#[test]
fn with_redirect_packets_between_pods_of_the_node_go_past_the_host() -> Result<()> {
    let stage = Stage::with(|service| service.annotated("enabled", "true"), &["--redirect"])?;
    introduce(&stage)?;
    count_forwarded(&stage.node)?;
    let body = vec![b'x'; 300_000];
    for service in [v4()?, v6()?] {
        let answers = client::http(&stage.client.namespace, service, 29)?;
        let local = answers.iter().filter(|pod| is_local(**pod)).count();
        ensure!([14, 15].contains(&local), "{answers:?}");
        client::udp(&stage.client.namespace, service, 10)?;
        for _ in 0..4 {
            let mut connection = Connection::open(&stage.client.namespace, service)?;
            for _ in 0..3 {
                connection.echo(&body)?;
            }
        }
    }
    ensure!(forwarded(&stage.node, "remote")? > 0, "nothing was counted");
    let local = forwarded(&stage.node, "local")?;
    ensure!(local == 0, "{local} packets went through the host");
    Ok(())
}

#[test]
fn connections_from_before_a_redirect_and_from_after_it_go_on() -> Result<()> {
    let mut stage = Stage::new()?;
    introduce(&stage)?;
    count_forwarded(&stage.node)?;
    let services = [v4()?, v6()?];
    let open = |stage: &Stage| -> Result<Vec<Connection>> {
        let each = services.iter().flat_map(|service: &SocketAddr| [*service; 4]);
        each.map(|service| Connection::open(&stage.client.namespace, service)).collect()
    };
    let mut connections = open(&stage)?;
    for arguments in [&["--redirect"], &[] as &[&str]] {
        stage.daemon.stop();
        stage.daemon.launch_with(arguments)?;
        connections.extend(open(&stage)?);
        for connection in &mut connections {
            connection.echo(&[b'y'; 20_000])?;
        }
    }
    Ok(())
}

/// Through the host, reverse path filters would drop it; past the host it must not come farther.
#[test]
fn a_pod_that_speaks_with_a_backends_address_is_not_heard() -> Result<()> {
    let stage = Stage::with(|service| service.annotated("enabled", "true"), &["--redirect"])?;
    introduce(&stage)?;
    let rogue = stage.world.add_pod(&stage.node, "rogue", &["10.12.0.66", "fd10:12::66"])?;
    let filter = format!("net/ipv4/conf/{}/rp_filter", rogue.host_interface);
    stage.node.namespace.sysctl(&filter, "1")?;
    // Answered without kube-proxy: our program is on its interface.
    client::http(&rogue.namespace, v4()?, 2)?;
    let (client, backend) = loop {
        let service = v4()?;
        let stream = stage.client.namespace.run(move || TcpStream::connect(service))?;
        let client = stream.local_addr()?;
        let mut connection = Connection::over(stream, service)?;
        let pod = connection.ask()?;
        if is_local(pod) {
            break (client, SocketAddr::new(pod, POD_PORT));
        }
    };

    let heard = stage.client.namespace.packet_socket("eth0")?;
    let spoken = rogue.namespace.packet_socket("eth0")?;
    let [host, own] = [mac(&stage.node.namespace, &rogue.host_interface)?, mac(&rogue.namespace, "eth0")?];
    let frame = |from: SocketAddr, words: &str| -> Result<Vec<u8>> {
        let [from_ip, to_ip] = [from.ip(), client.ip()].map(|ip| match ip {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(_) => unreachable!("the Service was called over IPv4"),
        });
        let builder = PacketBuilder::ethernet2(own, host).ipv4(from_ip, to_ip, 64);
        let mut frame = Vec::new();
        builder.tcp(from.port(), client.port(), 1, 1024).ack(1).write(&mut frame, words.as_bytes())?;
        Ok(frame)
    };
    for _ in 0..3 {
        spoken.send(&frame(backend, "forged")?)?;
    }
    // What the rogue says as itself arrives, after all that came before it.
    spoken.send(&frame("10.12.0.66:9".parse()?, "genuine")?)?;
    loop {
        let frame = heard.receive(Duration::from_secs(5))?.context("the genuine packet")?;
        ensure!(!frame.ends_with(b"forged"), "it was heard");
        if frame.ends_with(b"genuine") {
            return Ok(());
        }
    }
}

fn mac(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    let link: Value = serde_json::from_str(&namespace.ip(&format!("-json link show dev {interface}"))?)?;
    let text = link[0]["address"].as_str().context("an address")?;
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().with_context(|| text.to_owned())
}
