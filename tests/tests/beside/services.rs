//! What Kubernetes' own end-to-end tests expect of Services, with the real kube-proxy beneath.

use crate::{
    in_both_modes,
    stage::{LOCAL, REMOTE, SERVICES, Stage, vips, wait_for_endpoints},
    witness::Witness,
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Daemon, ProxyMode, ServiceRow,
    client::{self, Connection, Tally},
};
use serde_json::json;
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

in_both_modes! {
    removed_protocol: a_removed_protocol_fails_while_the_other_on_its_port_goes_on_beside_nftables,
        a_removed_protocol_fails_while_the_other_on_its_port_goes_on_beside_iptables;
    refused: without_endpoints_curl_says_connection_refused_beside_nftables,
        without_endpoints_curl_says_connection_refused_beside_iptables;
    unready: an_unready_pod_gets_nothing_new_until_it_is_ready_again_beside_nftables,
        an_unready_pod_gets_nothing_new_until_it_is_ready_again_beside_iptables;
    terminating: terminating_pods_serve_when_no_others_are_left_beside_nftables,
        terminating_pods_serve_when_no_others_are_left_beside_iptables;
    replaced: a_udp_client_survives_its_pods_being_replaced_beside_nftables,
        a_udp_client_survives_its_pods_being_replaced_beside_iptables;
    several_slices: an_endpoint_in_several_slices_counts_once_beside_nftables,
        an_endpoint_in_several_slices_counts_once_beside_iptables;
    named_port: a_named_target_port_is_each_pods_own_beside_nftables,
        a_named_target_port_is_each_pods_own_beside_iptables;
    last_of_its_node: under_local_policy_a_terminating_pod_serves_while_its_node_has_no_other_beside_nftables,
        under_local_policy_a_terminating_pod_serves_while_its_node_has_no_other_beside_iptables;
}

/// `serve` is ours.
fn ours(mode: ProxyMode) -> Result<(Stage, Daemon)> {
    let stage = Stage::new(mode)?;
    let mut daemon = stage.daemon()?;
    stage.opt_in(&mut daemon)?;
    Ok((stage, daemon))
}

/// Who answers over TCP and over UDP, of each family.
fn answers(stage: &Stage, each: u32) -> Result<[Tally; 4]> {
    let [v4, v6] = vips();
    let client = &stage.client.namespace;
    Ok([
        client::tally(&client::http(client, v4, each)?),
        client::tally(&client::udp(client, v4, each)?),
        client::tally(&client::http(client, v6, each)?),
        client::tally(&client::udp(client, v6, each)?),
    ])
}

fn all_by(pods: [&str; 2], each: u32) -> [Tally; 4] {
    let [v4, v6] = pods.map(|pod| Tally::from([(pod.parse::<IpAddr>().unwrap(), each)]));
    [v4.clone(), v4, v6.clone(), v6]
}

fn is_even(tally: &Tally) -> bool {
    tally.len() == 2 && tally.values().max().unwrap() - tally.values().min().unwrap() <= 1
}

fn connect(stage: &Stage, service: SocketAddr) -> Option<io::ErrorKind> {
    let connect = move || anyhow::Ok(TcpStream::connect_timeout(&service, Duration::from_secs(5)));
    stage.client.namespace.run(connect).ok()?.err().map(|error| error.kind())
}

fn send(stage: &Stage, service: SocketAddr) -> Result<io::Error> {
    let socket = client::udp_socket(&stage.client.namespace, service)?;
    socket.send(&[b'x'; 64])?;
    socket.recv(&mut [0; 64]).err().context("an answer")
}

/// Another port of a Service is refused: by kube-proxy in the mode nftables, at once; in iptables it does nothing, and we
/// refuse once programs are over that began before the change.
fn ensure_refused(mode: ProxyMode, mut call: impl FnMut() -> Result<io::ErrorKind>) -> Result<()> {
    let start = Instant::now();
    loop {
        let failure = call()?;
        if failure == io::ErrorKind::ConnectionRefused {
            return Ok(());
        }
        let is_early = mode == ProxyMode::Iptables && start.elapsed() < Duration::from_secs(20);
        ensure!(is_early, "{failure}");
    }
}

fn removed_protocol(mode: ProxyMode) -> Result<()> {
    let (mut stage, mut daemon) = ours(mode)?;
    let socket = client::udp_socket(&stage.client.namespace, vips()[0])?;
    client::udp_ask(&socket, vips()[0], "there?")?;
    let port = |name: &str, protocol: &str| json!({ "name": name, "port": 80, "protocol": protocol, "targetPort": 8080 });
    let mut only = |stage: &mut Stage, [name, gone]: [&str; 2], protocol: &str| -> Result<()> {
        stage.change(&json!({ "spec": { "ports": [port(name, protocol)] } }))?;
        daemon.wait_for_services(&format!("only {protocol}"), |rows| {
            rows.len() == 2 && rows.iter().all(|row| row.protocol == protocol && row.endpoints.len() == 2)
        })?;
        // What we pass it would serve.
        stage.proxy.wait_for_endpoints(gone, &[])
    };

    only(&mut stage, ["http", "serve:echo"], "TCP")?;
    for vip in vips() {
        ensure_refused(mode, || Ok(send(&stage, vip)?.kind()))?;
        assert!(is_even(&client::tally(&client::http(&stage.client.namespace, vip, 6)?)));
    }
    assert!(client::udp_ask(&socket, vips()[0], "still there?").is_err());

    only(&mut stage, ["echo", "serve:http"], "UDP")?;
    for vip in vips() {
        ensure_refused(mode, || connect(&stage, vip).context("a connection"))?;
        assert!(is_even(&client::tally(&client::udp(&stage.client.namespace, vip, 6)?)));
    }
    Ok(())
}

fn refused(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    stage.remove_imports()?;
    stage.api.remove_pod(&stage.local)?;
    wait_for_endpoints(&mut daemon, 0)?;
    let witness = Witness::new(&stage.node)?;
    let before = witness.passed()?;
    for vip in vips() {
        let mut curl = stage.client.namespace.command("curl")?;
        let output = curl.args(["--verbose", "--max-time", "5", &format!("http://{vip}/")]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains("Connection refused"), "{said}");
        assert_eq!(send(&stage, vip)?.kind(), io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(witness.passed()?, before);
    Ok(())
}

fn unready(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    for _ in 0..2 {
        stage.api.set_ready(&stage.local, false)?;
        wait_for_endpoints(&mut daemon, 1)?;
        assert_eq!(answers(&stage, 4)?, all_by(REMOTE, 4));
        stage.api.set_ready(&stage.local, true)?;
        wait_for_endpoints(&mut daemon, 2)?;
        let answers = answers(&stage, 6)?;
        assert!(answers.iter().all(is_even), "{answers:?}");
    }
    Ok(())
}

/// KEP-1669: pods that end and still serve take new connections when there are no others.
fn terminating(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    let open = |vip| Connection::open(&stage.client.namespace, vip);
    let mut connections =
        vips().into_iter().flat_map(|vip| [vip; 2]).map(open).collect::<Result<Vec<_>>>()?;
    let pods = connections.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>()?;

    stage.api.end_pod(&stage.local)?;
    wait_for_endpoints(&mut daemon, 1)?;
    assert_eq!(answers(&stage, 4)?, all_by(REMOTE, 4));
    stage.remove_imports()?;
    let local: [IpAddr; 2] = [LOCAL[0].parse()?, LOCAL[1].parse()?];
    daemon.wait_for_services("the terminating pod alone", |rows| {
        rows.len() == 4
            && rows.iter().all(|row| {
                let mut used = row.endpoints.iter().filter(|endpoint| endpoint.in_maps);
                used.next().is_some_and(|endpoint| local.contains(&endpoint.address)) && used.next().is_none()
            })
    })?;
    assert_eq!(answers(&stage, 4)?, all_by(LOCAL, 4));
    stage.import("")?;
    daemon.wait_for_services("the pod in member1 alone", |rows| {
        rows.iter().all(|row| {
            row.endpoints.iter().all(|endpoint| endpoint.in_maps != local.contains(&endpoint.address))
        })
    })?;
    assert_eq!(answers(&stage, 4)?, all_by(REMOTE, 4));
    // Whatever happened meanwhile.
    assert_eq!(connections.iter_mut().map(Connection::ask).collect::<Result<Vec<_>>>()?, pods);
    Ok(())
}

/// KEP-1669 together with `internalTrafficPolicy: Local`: however many there are on other nodes.
fn last_of_its_node(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    stage.change(&json!({ "spec": { "internalTrafficPolicy": "Local" } }))?;
    wait_for_endpoints(&mut daemon, 1)?;
    assert_eq!(answers(&stage, 4)?, all_by(LOCAL, 4));
    stage.api.end_pod(&stage.local)?;
    daemon.wait_for_services("a terminating endpoint in use", |rows| {
        rows.iter().all(|row| {
            row.endpoints.iter().any(|endpoint| endpoint.in_maps && endpoint.verdict.contains("terminating"))
        })
    })?;
    assert_eq!(answers(&stage, 4)?, all_by(LOCAL, 4));
    stage.api.remove_pod(&stage.local)?;
    wait_for_endpoints(&mut daemon, 0)?;
    for vip in vips() {
        assert_eq!(connect(&stage, vip), Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(send(&stage, vip)?.kind(), io::ErrorKind::ConnectionRefused);
    }
    Ok(())
}

fn replaced(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    stage.remove_imports()?;
    wait_for_endpoints(&mut daemon, 1)?;
    let sockets =
        vips().map(|vip| client::udp_socket(&stage.client.namespace, vip).map(|socket| (socket, vip)));
    let sockets = sockets.into_iter().collect::<Result<Vec<_>>>()?;
    for (socket, vip) in &sockets {
        client::udp_ask(socket, *vip, "first")?;
    }
    let mut pods = Vec::new();
    for number in 31..34 {
        stage.api.remove_pod(pods.last().unwrap_or(&stage.local))?;
        wait_for_endpoints(&mut daemon, 0)?;
        for (socket, _) in &sockets {
            socket.send(&[b'x'; 64])?;
            let refused = socket.recv(&mut [0; 64]).err().context("an answer")?;
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
        let addresses = [format!("10.12.0.{number}"), format!("fd10:12::{number}")];
        let [v4, v6] = &addresses;
        let pod = stage.world.add_serving_pod(&stage.node, &format!("serve-{number}"), &[v4, v6])?;
        stage.api.enter_pod(&pod, "serve", &[])?;
        wait_for_endpoints(&mut daemon, 1)?;
        for ((socket, vip), address) in sockets.iter().zip(&addresses) {
            assert_eq!(client::udp_ask(socket, *vip, "next")?, address.parse::<IpAddr>()?);
        }
        pods.push(pod);
    }
    Ok(())
}

fn several_slices(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    stage.import("another-")?;
    daemon.wait_for_services("the endpoints of both slices", |rows| {
        rows.len() == 4 && rows.iter().all(|row| row.endpoints.len() == 3)
    })?;
    wait_for_endpoints(&mut daemon, 2)?;
    let answers = answers(&stage, 29)?;
    assert!(answers.iter().all(is_even), "{answers:?}");
    // The first goes, the other stands for it.
    stage.remove_imports()?;
    daemon.wait_for_services("one slice less", |rows| rows.iter().all(|row| row.endpoints.len() == 2))?;
    wait_for_endpoints(&mut daemon, 2)
}

fn named_port(mode: ProxyMode) -> Result<()> {
    let (stage, mut daemon) = ours(mode)?;
    let mut pods = Vec::new();
    for (name, number, port) in [("named-1", 21, 8080), ("named-2", 22, 9090)] {
        let addresses = [format!("10.12.0.{number}"), format!("fd10:12::{number}")];
        let mut pod = stage.world.add_pod(&stage.node, name, &[&addresses[0], &addresses[1]])?;
        pod.serve_on(port)?;
        stage.api.enter_pod(&pod, "named", &[("web", port)])?;
        pods.push(pod);
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "named", "annotations": { "mcs-proxy.io/enabled": "true" } },
        "spec": {
            "clusterIP": "10.13.0.77", "clusterIPs": ["10.13.0.77", "fd10:13::77"],
            "ipFamilyPolicy": "RequireDualStack", "selector": { "app": "named" },
            "ports": [{ "name": "http", "port": 80, "targetPort": "web" }],
        },
    });
    stage.api.create(SERVICES, &service.to_string())?;
    daemon.wait_for_services("two endpoints of `named`, both families", |rows| {
        let named: Vec<&ServiceRow> = rows.iter().filter(|row| row.name == "named").collect();
        named.len() == 2 && named.iter().all(|row| row.endpoints.len() == 2)
    })?;
    for vip in ["10.13.0.77:80", "[fd10:13::77]:80"] {
        let tally = client::tally(&client::http(&stage.client.namespace, vip.parse()?, 10)?);
        ensure!(is_even(&tally), "{tally:?}");
    }
    Ok(())
}
