//! What a program costs, as a ratio to an empty program of the same type in the same run: BPF_PROG_TEST_RUN on the
//! real programs, loaded with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON alone.
//!
//! Two ways of running, because a program changes the packet it is run on:
//! - *warm*: one packet, a million times. For an established flow two frontends translate to each other, so that the
//!   packet is translated back and forth.
//! - *once*: ten thousand packets of as many clients, each run once, medians compared. A new flow can only be
//!   measured so; the timer's own cost is in both figures.
#![expect(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

#[path = "../tests/packets/programs.rs"]
#[expect(dead_code, reason = "shared with the packet tables, which need more of it")]
mod programs;
#[path = "../tests/packets/wire.rs"]
#[expect(dead_code, reason = "shared with the packet tables, which need more of it")]
mod wire;

use aya::programs::{TestRun as _, TestRunOptions};
use mcs_proxy_ebpf::abi::{Algorithm, MapSizes};
use programs::{Frontend, POD, Programs};
use std::{net::SocketAddr, time::Duration};
use wire::Segment;

const REPEAT: u32 = 1_000_000;
const CLIENTS: u16 = 10_000;
const ROUNDS: usize = 7;
const TCP: u8 = 6;

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let mut rows = Vec::new();
    for (family, vip, backend) in [
        ("IPv4", "10.13.181.116:80", "10.10.0.6:8080"),
        ("IPv6", "[fd00:10:13::b574]:80", "[fd00:10:10::6]:8080"),
    ] {
        rows.extend(measure(family, vip.parse().unwrap(), backend.parse().unwrap()));
    }
    if json {
        println!("{}", serde_json::json!({ "rows": rows.iter().map(Row::json).collect::<Vec<_>>() }));
        return;
    }
    println!("family program  path         run    empty ns  program ns  ratio  verified instructions");
    for Row { family, program, path, run, empty, ours, instructions } in &rows {
        println!(
            "{family:6} {program:8} {path:12} {run:5} {empty:9} {ours:11} {:6.2} {instructions:22}",
            *ours as f64 / *empty as f64
        );
    }
}

struct Row {
    family: &'static str,
    program: &'static str,
    path: &'static str,
    run: &'static str,
    /// Nanoseconds of the empty program.
    empty: u128,
    /// Nanoseconds of ours.
    ours: u128,
    instructions: u32,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let Self { family, program, path, run, empty, ours, instructions } = self;
        serde_json::json!({
            "family": family, "program": program, "path": path, "maps": run, "empty_ns": empty, "ns": ours,
            "ratio": *ours as f64 / *empty as f64, "instructions": instructions,
        })
    }
}

fn measure(family: &'static str, vip: SocketAddr, backend: SocketAddr) -> Vec<Row> {
    let mut programs =
        Programs::load_with(MapSizes { frontends: 65_536, flows: 524_288, ..MapSizes::DEFAULT });
    let there = [(backend, 1)];
    let back = [(vip, 2)];
    let algorithm = Algorithm::RoundRobin;
    programs.add(&Frontend { vip, protocol: TCP, algorithm, affinity_seconds: 0, slots: &there });
    programs.add(&Frontend { vip: backend, protocol: TCP, algorithm, affinity_seconds: 0, slots: &back });

    let client =
        SocketAddr::new(if vip.is_ipv4() { "10.12.0.9" } else { "fd00:10:12::9" }.parse().unwrap(), 40_000);
    let stranger =
        SocketAddr::new(if vip.is_ipv4() { "192.0.2.7" } else { "2001:db8::7" }.parse().unwrap(), 80);
    let mut rows = Vec::new();
    let mut warm = |programs: &mut Programs, program: &'static str, path, packet: &[u8]| {
        let mut pairs: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let empty = time(programs, "empty", packet, REPEAT);
                (empty, time(programs, program, packet, REPEAT))
            })
            .collect();
        pairs.sort_by_key(|(_, ours)| *ours);
        let (empty, ours) = pairs[ROUNDS / 2];
        let instructions = programs.instructions(program);
        rows.push(Row {
            family,
            program,
            path,
            run: "warm",
            empty: empty.as_nanos(),
            ours: ours.as_nanos(),
            instructions,
        });
    };
    let miss = Segment::tcp(client, stranger, "A", 1).bytes();
    warm(&mut programs, "from_pod", "miss", &miss);
    let miss = Segment::tcp(stranger, client, "A", 1).bytes();
    warm(&mut programs, "to_pod", "miss", &miss);
    // Establish the flow in both directions; its packets then bounce between the two frontends.
    for (target, answers) in [(vip, backend), (backend, vip)] {
        establish(&mut programs, client, target, answers);
    }
    let established = Segment::tcp(client, vip, "A", 2).bytes();
    warm(&mut programs, "from_pod", "established", &established);

    let once = |programs: &mut Programs, program: &str, flags: &'static str| {
        median(
            (1..=CLIENTS)
                .map(|port| {
                    let from = SocketAddr::new(client.ip(), port);
                    time(programs, program, &Segment::tcp(from, vip, flags, 1).bytes(), 1)
                })
                .collect(),
        )
    };
    let empty = once(&mut programs, "empty", "S").as_nanos();
    // A new flow's packet goes on with a second program.
    for (path, flags, last) in [("new flow", "S", "open"), ("established", "A", "from_pod")] {
        let instructions = programs.instructions(last);
        if path == "established" {
            for port in 1..=CLIENTS {
                establish(&mut programs, SocketAddr::new(client.ip(), port), vip, backend);
            }
        }
        let ours = once(&mut programs, "from_pod", flags).as_nanos();
        rows.push(Row { family, program: "from_pod", path, run: "once", empty, ours, instructions });
    }
    assert_eq!(programs.pairs().0, usize::from(CLIENTS) + 2, "every client opened a flow");
    let outcome = programs.run("from_pod", &Segment::tcp(client, stranger, "A", 1).bytes(), POD);
    assert_eq!(outcome.verdict, mcs_proxy_ebpf::abi::Verdict::NotOurs);
    rows
}

/// SYN, SYN-ACK, ACK.
fn establish(programs: &mut Programs, client: SocketAddr, target: SocketAddr, answers: SocketAddr) {
    let syn = Segment::tcp(client, target, "S", 1);
    programs.from_pod(&syn.bytes());
    programs.to_pod(&syn.answer(answers, "SA").bytes());
    programs.from_pod(&Segment::tcp(client, target, "A", 2).bytes());
}

/// Nanoseconds of one run of a program on a packet, averaged by the kernel over `repeat` runs.
fn time(programs: &mut Programs, program: &str, packet: &[u8], repeat: u32) -> Duration {
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
    programs.program(program).test_run(options).unwrap().duration
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}
