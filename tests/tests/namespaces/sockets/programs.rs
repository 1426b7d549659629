//! Programs that people run, and servers that they run: all in a cgroup of the test's own, with `--socket-path all`.

use super::{PATIENCE, split};
use crate::stage::{PODS, PODS_V6, Stage, VIP, VIP_V6, v4, v6};
use anyhow::{Context as _, Result, bail, ensure};
use mcs_proxy_tests::{
    Cgroup, Namespace, Process, client,
    karmada::{Endpoint, Port, Service, Slice},
    programs,
};
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// An odd number, of which each of two backends has its share.
const CALLS: usize = 29;

/// Fields are dropped in order: a cgroup must be empty when it goes.
struct Shop {
    servers: Vec<Process>,
    stage: Stage,
    cgroup: Cgroup,
}

impl Shop {
    fn new() -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let path = cgroup.path().display().to_string();
        let stage = Stage::with(
            |service| service.annotated("enabled", "true"),
            &["--socket-path", "all", "--cgroup", &path],
        )?;
        Ok(Self { servers: Vec::new(), stage, cgroup })
    }

    /// Runs the same server in both pods, and enters a Service for them.
    fn open(
        &mut self,
        name: &str,
        vips: [&str; 2],
        ports: &[Port],
        server: impl Fn(usize) -> Result<(std::path::PathBuf, Vec<String>)>,
    ) -> Result<()> {
        let stage = &mut self.stage;
        for (number, pod) in stage.pods.iter().enumerate() {
            let (program, arguments) = server(number)?;
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let process =
                pod.namespace.spawn(&format!("{}-{name}", pod.namespace.name()), &program, &arguments)?;
            self.servers.push(process);
            for address in [PODS[number], PODS_V6[number]] {
                let address = SocketAddr::new(address.parse()?, ports[0].port);
                await_server(&pod.namespace, address).with_context(|| format!("{name} at {address}"))?;
            }
        }
        let service = Service::new(name, "member2", &vips, ports)?.annotated("enabled", "true");
        stage.manifests.service(&service)?;
        for (number, provider) in ["member1", "member2"].into_iter().enumerate() {
            for (family, address) in [("v4", PODS[number]), ("v6", PODS_V6[number])] {
                let pod = Endpoint::new(address, &format!("{provider}-node-1"), "serve-1")?;
                let slice = format!("{provider}-{name}-{family}");
                let slice = Slice::new(&slice, name, "member2", provider, &[pod]).with_ports(ports);
                stage.manifests.slice(&slice)?;
            }
        }
        let frontends = vips.len() * ports.len();
        stage.daemon.wait_for_services(name, |rows| {
            let rows: Vec<_> = rows.iter().filter(|row| row.name == name).collect();
            let is_whole = |row: &&&mcs_proxy_tests::ServiceRow| {
                row.endpoints.iter().filter(|endpoint| endpoint.in_maps).count() == 2
            };
            rows.len() == frontends && rows.iter().filter(is_whole).count() == frontends
        })
    }

    /// Runs a program in the cgroup, and returns what it prints.
    fn run(&self, place: &Namespace, program: &Path, arguments: &[&str]) -> Result<String> {
        let procs = self.cgroup.path().join("cgroup.procs");
        let script = format!("echo $$ > {} && exec \"$@\"", procs.display());
        let mut shell = place.command("sh")?;
        let output = shell.args(["-c", &script, "sh"]).arg(program).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("{} {arguments:?}: {}: {said}{words}", program.display(), output.status);
        }
        Ok(said)
    }

    /// The node's own processes, and a pod's.
    fn places(&self) -> [&Namespace; 2] {
        [&self.stage.node.namespace, &self.stage.client.namespace]
    }

    /// That nothing went by packets.
    fn expect_no_flow(&self) -> Result<()> {
        let flows = self.stage.daemon.connections()?;
        ensure!(flows == 0, "{flows} flows of the packet path");
        Ok(())
    }
}

fn await_server(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    namespace.run(move || -> Result<_> {
        let start = Instant::now();
        loop {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => return Ok(()),
                Err(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(error.into()),
            }
        }
    })
}

fn ports(names: &[(&str, &str)], port: u16) -> Vec<Port> {
    names.iter().map(|(name, protocol)| Port::new(name, protocol, port)).collect()
}

/// Of pods' own words, one a line.
fn named(lines: &str) -> Result<Vec<IpAddr>> {
    lines.lines().filter(|line| !line.is_empty()).map(client::who).collect()
}

#[test]
fn curl_takes_turns_over_new_connections_and_keeps_to_one_that_it_holds() -> Result<()> {
    let shop = Shop::new()?;
    let curl = programs::installed("curl", "curl")?;
    let common = ["--globoff", "--silent", "--show-error", "--fail", "--max-time", "5"];
    for place in shop.places() {
        for (vip, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
            let urls = vec![format!("http://{vip}/"); CALLS];
            let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
            let apart = [&common[..], &["--header", "Connection: close"], &urls].concat();
            assert_eq!(split(&named(&shop.run(place, &curl, &apart)?)?, pods), [14, 15], "{vip}");
            let held = named(&shop.run(place, &curl, &[&common[..], &urls].concat())?)?;
            ensure!(held.len() == CALLS && held.iter().all(|pod| *pod == held[0]), "{held:?}");
            // What the program takes its peer for.
            let peer = ["--output", "/dev/null", "--write-out", "%{remote_ip} %{remote_port}"];
            let said = shop.run(place, &curl, &[&common[..], &peer, &urls[..1]].concat())?;
            assert_eq!(said, format!("{} {}", vip.ip(), vip.port()));
        }
    }
    shop.expect_no_flow()
}

#[test]
fn dig_is_answered_by_dns_servers_in_turn_over_udp_and_tcp() -> Result<()> {
    const SERVERS: [&str; 2] = ["10.13.0.53", "fd10:13::53"];
    let mut shop = Shop::new()?;
    let dig = programs::installed("dig", "bind9-dnsutils")?;
    let server = |number: usize| {
        let own = [PODS[number], PODS_V6[number]].map(|address| format!("--address=/who.test/{address}"));
        let fixed = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--group=root",
            "--pid-file",
            "--log-facility=-",
        ];
        let arguments = fixed.into_iter().map(str::to_owned).chain(own).collect();
        Ok((programs::installed("dnsmasq", "dnsmasq-base")?, arguments))
    };
    shop.open("dns", SERVERS, &ports(&[("dns", "UDP"), ("dns-tcp", "TCP")], 53), server)?;
    let ask = |place: &Namespace, server: &str, kind: &str, protocol: &str| -> Result<IpAddr> {
        let server = format!("@{server}");
        let said =
            shop.run(place, &dig, &["+short", "+tries=1", "+time=5", protocol, &server, "who.test", kind])?;
        said.trim().parse().with_context(|| format!("dig {server}: {said}"))
    };
    let [node, pod] = shop.places();
    for (server, kind, pods) in [(SERVERS[0], "A", PODS), (SERVERS[1], "AAAA", PODS_V6)] {
        for protocol in ["+notcp", "+tcp"] {
            let answers =
                (0..CALLS).map(|_| ask(node, server, kind, protocol)).collect::<Result<Vec<_>>>()?;
            assert_eq!(split(&answers, pods), [14, 15], "{server} {protocol}");
        }
        ask(pod, server, kind, "+tcp")?;
    }
    shop.expect_no_flow()?;
    // A pod's sockets are connected when dig asks over UDP, and go by packets then.
    for (server, kind) in [(SERVERS[0], "A"), (SERVERS[1], "AAAA")] {
        ask(pod, server, kind, "+notcp")?;
    }
    Ok(())
}

#[test]
fn redis_cli_speaks_with_redis_servers_in_turn_and_with_one_over_a_session() -> Result<()> {
    const SERVERS: [&str; 2] = ["10.13.0.63", "fd10:13::63"];
    let mut shop = Shop::new()?;
    let cli = programs::installed("redis-cli", "redis-tools")?;
    // The server is the same program by another name; the package that has it by that name starts one on the machine.
    let redis = shop.stage.world.folder("redis")?.join("redis-server");
    symlink(programs::installed("redis-check-rdb", "redis-tools")?, &redis)?;
    let server = |_| {
        let arguments = ["--port", "6379", "--protected-mode", "no", "--save", "", "--bind", "0.0.0.0", "::"];
        Ok((redis.clone(), arguments.map(str::to_owned).to_vec()))
    };
    shop.open("redis", SERVERS, &ports(&[("redis", "TCP")], 6379), server)?;
    for (pod, address) in shop.stage.pods.iter().zip(PODS) {
        shop.run(&pod.namespace, &cli, &["set", "who", address])?;
    }
    let ask = |place: &Namespace, server: &str, command: &[&str]| {
        shop.run(place, &cli, &[&["-h", server], command].concat())
    };
    for place in shop.places() {
        for server in SERVERS {
            let answers = (0..CALLS)
                .map(|_| Ok(ask(place, server, &["get", "who"])?.trim().parse()?))
                .collect::<Result<Vec<IpAddr>>>()?;
            assert_eq!(split(&answers, PODS), [14, 15], "{server}");
            // One connection, again and again.
            let held = ask(place, server, &["-r", "100", "get", "who"])?;
            let held: Vec<&str> = held.lines().collect();
            ensure!(held.len() == 100 && held.iter().all(|who| *who == held[0]), "{held:?}");
            let large = ask(place, server, &["eval", "return string.rep('x', 1000000)", "0"])?;
            assert_eq!(large.trim().len(), 1_000_000);
        }
    }
    shop.expect_no_flow()
}

#[test]
fn a_program_in_go_takes_turns_in_every_way_that_its_library_calls() -> Result<()> {
    let shop = Shop::new()?;
    let goclient = programs::goclient()?;
    let [node, pod] = shop.places();
    let times = CALLS.to_string();
    for (vip, pods) in [(v4()?, PODS), (v6()?, PODS_V6)] {
        let target = vip.to_string();
        for way in ["http", "tcp", "udp", "udp-unconnected"] {
            let answers = named(&shop.run(node, &goclient, &[way, &target, &times])?)?;
            assert_eq!(split(&answers, pods), [14, 15], "{way} {vip}");
        }
        for way in ["http", "tcp", "udp-unconnected"] {
            let answers = named(&shop.run(pod, &goclient, &[way, &target, &times])?)?;
            assert_eq!(split(&answers, pods), [14, 15], "{way} {vip}");
        }
    }
    shop.expect_no_flow()
}

/// Connections that are under way all at once, then datagrams over one socket of IPv6 a call.
const PYTHON: &str = r#"
import asyncio, ipaddress, socket, sys
address, port, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def ask():
    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 5)
    peer = writer.get_extra_info("peername")
    assert peer[:2] == (address, port), peer
    writer.write(b"GET / HTTP/1.1\r\nHost: serve\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    print(" ".join(answer.decode().split()))

async def ask_all():
    await asyncio.gather(*(ask() for _ in range(calls)))

asyncio.run(ask_all())
to = address if ":" in address else "::ffff:" + address
for _ in range(calls):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"who", (to, port))
        answer, peer = client.recvfrom(2048)
        assert ipaddress.ip_address(peer[0]) == ipaddress.ip_address(to) and peer[1] == port, peer
        print(" ".join(answer.decode().split()))
"#;

#[test]
fn a_program_in_python_takes_turns_with_many_connections_at_once_and_with_datagrams() -> Result<()> {
    let shop = Shop::new()?;
    let python = programs::installed("python3", "python3")?;
    for place in shop.places() {
        for (vip, pods) in [(VIP, PODS), (VIP_V6, PODS_V6)] {
            let port = crate::stage::SERVICE_PORT.to_string();
            let said = shop.run(place, &python, &["-c", PYTHON, vip, &port, &CALLS.to_string()])?;
            let answers = named(&said)?;
            ensure!(answers.len() == 2 * CALLS, "{said}");
            for (way, answers) in ["TCP", "UDP"].into_iter().zip(answers.chunks(CALLS)) {
                assert_eq!(split(answers, pods), [14, 15], "{way} {vip}");
            }
        }
    }
    shop.expect_no_flow()
}
