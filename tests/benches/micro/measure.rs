//! What is run, and how it is timed.

use crate::{
    chain::{Chain, Family, Random},
    programs::Programs,
    table::{Maps, Path, Row},
    wire::Segment,
};
use aya::programs::{TestRun as _, TestRunOptions};
use mcs_proxy::dataplane::flows::TickRate;
use mcs_proxy_ebpf::abi::{EventKind, MapName, MapSizes, Switch, Verdict, lease};
use std::{mem::offset_of, time::Duration};

/// Runs of a warm packet in one call.
const REPEAT: u32 = 1_000_000;
/// Pairs of measurements, the empty program's and ours in turn; of each the fastest counts, which is the least disturbed.
const ROUNDS: u16 = 7;
/// Frontends that new flows go to while the maps are warm.
const FEW: u32 = 64;
/// What fills the maps; index 0 of the frontends is never used.
const FRONTENDS: u32 = 65_535;
const CLIENTS: u16 = 8;
/// Packets of strangers.
const STRANGERS: u32 = 50_000;

const SIZES: MapSizes = MapSizes::DEFAULT;

/// All rows of one family.
pub(crate) fn rows(family: Family) -> Vec<Row> {
    let mut rows = warm(family);
    rows.extend(filled(family));
    rows
}

fn load() -> Programs {
    Programs::load_at(SIZES, SIZES.flows / 4, TickRate::of_this_kernel().unwrap().per_second())
}

/// A [`Switch`] is as large as an event.
type SwitchWords = [u64; size_of::<Switch>() / 8];

struct Bench {
    family: Family,
    maps: Maps,
    /// Whether someone listens.
    told: bool,
    programs: Programs,
    rows: Vec<Row>,
}

/// One packet, and one flow that it belongs to, again and again.
fn warm(family: Family) -> Vec<Row> {
    let mut bench = Bench { family, maps: Maps::Warm, told: false, programs: load(), rows: Vec::new() };
    let (client, stranger) = (family.client(40_000), family.stranger(7));
    for (program, from, to) in [("from_pod", client, stranger), ("to_pod", stranger, client)] {
        let packet = Segment::tcp(from, to, "A", 1).bytes();
        bench.compare(program, Path::Miss, |programs, name, _| time(programs, name, &packet, REPEAT));
    }
    // Translated back and forth between two.
    let two = Chain::new(&mut bench.programs, family, 2);
    let now = bench.programs.now();
    two.establish(&mut bench.programs, client, now);
    let established = |bench: &mut Bench| {
        for (program, from, to) in [("from_pod", client, two.first()), ("to_pod", two.first(), client)] {
            let packet = Segment::tcp(from, to, "A", 2).bytes();
            bench.compare(program, Path::Established, |programs, name, _| {
                time(programs, name, &packet, REPEAT)
            });
        }
    };
    established(&mut bench);
    bench.listen();
    established(&mut bench);
    assert_eq!(bench.events(), 0, "of packets of known flows nothing is told");
    for told in [false, true] {
        // Maps that have as few flows in them as the other time.
        bench = Bench { programs: load(), told: false, ..bench };
        let few = Chain::new(&mut bench.programs, family, FEW);
        if told {
            bench.listen();
        }
        bench.compare("from_pod", Path::New, |programs, name, round| {
            const PORTS: u16 = 128;
            mean((0..PORTS).map(|port| {
                let client = family.client(1 + round * PORTS + port);
                time(programs, name, &Segment::tcp(client, few.first(), "S", 1).bytes(), few.len())
            }))
        });
        bench.assert_count(Verdict::NewFlow);
        assert_eq!(bench.events() > 0, told);
    }
    bench.rows
}

/// Another flow with every packet, and all maps full.
fn filled(family: Family) -> Vec<Row> {
    let mut bench = Bench { family, maps: Maps::Filled, told: false, programs: load(), rows: Vec::new() };
    let all = Chain::new(&mut bench.programs, family, FRONTENDS);
    let now = bench.programs.now();
    for port in 1..=CLIENTS {
        all.establish(&mut bench.programs, family.client(port), now);
    }
    let mut random = Random::new();
    let strangers: Vec<_> = (0..STRANGERS).map(|_| family.stranger(random.below(1 << 24))).collect();
    for program in ["from_pod", "to_pod"] {
        // These stay as they are, so that each needs a run of its own; the clock's cost is in both figures.
        bench.compare(program, Path::Miss, |programs, name, _| {
            mean(strangers.iter().map(|&stranger| {
                let client = family.client(40_000);
                let (from, to) = if program == "from_pod" { (client, stranger) } else { (stranger, client) };
                time(programs, name, &Segment::tcp(from, to, "A", 1).bytes(), 1)
            }))
        });
    }
    for program in ["from_pod", "to_pod"] {
        bench.compare(program, Path::Established, |programs, name, _| {
            mean((1..=CLIENTS).map(|port| {
                let (client, vip) = (family.client(port), all.first());
                let (from, to) = if program == "from_pod" { (client, vip) } else { (vip, client) };
                time(programs, name, &Segment::tcp(from, to, "A", 2).bytes(), all.len())
            }))
        });
    }
    // The transient pair is full after the first round.
    bench.compare("from_pod", Path::New, |programs, name, round| {
        let syn = Segment::tcp(family.client(1000 + round), all.first(), "S", 1).bytes();
        time(programs, name, &syn, all.len())
    });
    bench.assert_count(Verdict::NewFlow);
    bench.rows
}

impl Bench {
    /// As someone does who wants to be told everything, for longer than this takes.
    fn listen(&mut self) {
        const SECONDS: u32 = 3600;
        let ticks = TickRate::of_this_kernel().unwrap().per_second() * SECONDS;
        let until = lease(self.programs.now().wrapping_add(ticks));
        let mut words: SwitchWords = [0; size_of::<Switch>() / 8];
        words[offset_of!(Switch, leases) / 8..][..EventKind::ALL.len()].fill(until);
        self.programs.array::<SwitchWords>(MapName::Events).set(0, words, 0).unwrap();
        self.told = true;
    }

    /// That were told so far.
    fn events(&mut self) -> u64 {
        self.programs.array::<SwitchWords>(MapName::Events).get(&0, 0).unwrap()[offset_of!(Switch, count) / 8]
    }

    /// Measures the empty program and ours in turn. The first round warms up: it is not counted.
    fn compare(
        &mut self,
        program: &'static str,
        path: Path,
        mut run: impl FnMut(&mut Programs, &str, u16) -> Duration,
    ) {
        let pairs: Vec<_> = (0..=ROUNDS)
            .map(|round| {
                let empty = run(&mut self.programs, "empty", round);
                (empty, run(&mut self.programs, program, round))
            })
            .skip(1)
            .collect();
        let empty = pairs.iter().map(|(empty, _)| *empty).min().unwrap();
        let ours = pairs.iter().map(|(_, ours)| *ours).min().unwrap();
        self.rows.push(Row {
            family: self.family.name().to_owned(),
            program: program.to_owned(),
            path,
            maps: self.maps,
            told: self.told,
            empty_ns: empty.as_secs_f64() * 1e9,
            ns: ours.as_secs_f64() * 1e9,
            ratio: ours.as_secs_f64() / empty.as_secs_f64(),
            // A new flow's packet goes on with a second program.
            instructions: self.programs.instructions(if path == Path::New { "open" } else { program }),
        });
    }

    /// That what was measured last is what it was meant to be: nothing else has happened to packets of that kind.
    fn assert_count(&self, verdict: Verdict) {
        for other in Verdict::ALL {
            let fine = [verdict, Verdict::Forwarded, Verdict::Replied, Verdict::NotOurs].contains(&other)
                || (self.maps == Maps::Filled && [Verdict::NoService, Verdict::NoFlow].contains(&other));
            let count = self.programs.verdict(other);
            assert!(fine || count == 0, "{other:?}: {count}");
        }
        assert!(self.programs.verdict(verdict) > 0);
    }
}

/// One run of a program on a packet, averaged by the kernel over `repeat` runs.
fn time(programs: &mut Programs, program: &str, packet: &[u8], repeat: u32) -> Duration {
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
    programs.program(program).test_run(options).unwrap().duration
}

/// Without the slowest in a hundred, into which something else has come.
fn mean(durations: impl Iterator<Item = Duration>) -> Duration {
    let mut durations: Vec<_> = durations.collect();
    durations.sort();
    durations.truncate(durations.len() - durations.len() / 100);
    let count = durations.len() as u32;
    durations.into_iter().sum::<Duration>() / count
}
