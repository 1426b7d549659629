//! The kernel refuses one bpf(2) call of a start after another: of one that takes over what is pinned, under traffic, and of a
//! node's first.

use crate::{
    faults::meanwhile,
    stage::{Stage, vip},
};
use anyhow::{Context, Result, ensure};
use mcs_proxy_tests::{
    Rule,
    client::{self, Connection},
    figure, is_long,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// For want of memory, and of rights; with what the C library says of them.
const ERRORS: [(i32, &str); 2] =
    [(libc::ENOMEM, "Cannot allocate memory"), (libc::EPERM, "Operation not permitted")];

/// The call that a start is refused.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: usize,
    error: i32,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// It made no such number of calls.
    Unharmed,
    /// It ended with an error that names what was refused.
    Ended,
    /// It went on, and said what it did without until it had tried again.
    Degraded,
    /// It went on as if nothing were: it had only asked what the kernel can do, or the kernel had no need to be asked.
    Unnoticed,
}

/// All starts of one kind.
#[derive(Debug, Default)]
struct Walk {
    ended: usize,
    degraded: usize,
    unnoticed: usize,
    /// What was said of a command that was refused, without what differs from one time to the next.
    said: BTreeMap<String, usize>,
    /// The longest exchange of the connection that was open meanwhile.
    stall: Duration,
}

impl Walk {
    fn count(&mut self, start: Start, refused: &[&str], log: &str) {
        let complaints: Vec<_> = match start {
            Start::Unharmed => return,
            Start::Ended => {
                self.ended += 1;
                ending(log).lines().take(1).collect()
            }
            Start::Degraded => {
                self.degraded += 1;
                complaints(log).collect()
            }
            Start::Unnoticed => {
                self.unnoticed += 1;
                Vec::new()
            }
        };
        let said: String = format!("{start:?}: {}: {}", refused.join(", "), complaints.join(" | "))
            .chars()
            .map(|char| if char.is_ascii_digit() { '0' } else { char })
            .collect();
        *self.said.entry(said).or_default() += 1;
    }

    /// What of it is to be read by whoever runs it by hand.
    fn tell(&self) {
        for (said, times) in &self.said {
            println!("{times:4} {said}");
        }
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ended, degraded, unnoticed, .. } = self;
        write!(
            formatter,
            "{} starts, of which {ended} ended with an error that named map, program or pin, {degraded} went on degraded, said \
             so and made it good, and {unnoticed} lacked nothing; 0 panics, 0 pins that the next start could not take over",
            ended + degraded + unnoticed
        )
    }
}

fn complaints(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
}

/// Every call of a start, or a few here and there; by the errors in turn.
fn calls(stage: &mut Stage) -> Result<Vec<Call>> {
    const FEW: usize = 10;
    stage.daemon.launch_gated(Rule::Pass)?;
    let most = stage.daemon.gate()?.calls();
    ensure!(most > FEW, "only {most} calls");
    let places = if is_long() { most } else { FEW };
    let spread = (0..places).map(|place| 1 + place * (most - 1) / (places - 1));
    Ok(spread.zip(ERRORS.iter().cycle()).map(|(number, &(error, _))| Call { number, error }).collect())
}

/// Starts the daemon with a call refused, and waits until it has ended, or all that it should serve `is_served`.
fn start(
    stage: &mut Stage,
    Call { number, error }: Call,
    walk: &mut Walk,
    is_served: impl Fn(&Stage) -> Result<()>,
) -> Result<Start> {
    let launched = stage.daemon.launch_gated(Rule::One { number, error });
    if launched.is_ok() {
        is_served(stage).with_context(|| stage.daemon.log())?;
    }
    let (log, refused) = (stage.daemon.log(), stage.daemon.gate()?.refused());
    ensure!(!log.contains("panicked"), "{log}");
    let started = match (launched.is_ok(), refused.is_empty(), complaints(&log).next().is_some()) {
        (true, true, _) => Start::Unharmed,
        (true, false, true) => Start::Degraded,
        (true, false, false) => Start::Unnoticed,
        (false, ..) => {
            ensure!(!stage.daemon.is_running()?, "neither in step nor ended: {log}");
            ensure!(!refused.is_empty(), "it ended without a reason: {log}");
            says_what_was_refused(stage, ending(&log), error, &refused)?;
            Start::Ended
        }
    };
    walk.count(started, &refused, &log);
    Ok(started)
}

/// What a start that has ended said at last: with what the verifier has to say more than a line.
fn ending(log: &str) -> &str {
    log.rfind("mcs-proxy: ").map_or("", |start| log[start..].trim_end())
}

fn says_what_was_refused(stage: &Stage, ending: &str, error: i32, refused: &[&str]) -> Result<()> {
    // A pinned map that aya cannot open it takes for one that is not there, and then finds its name taken.
    let is_taken = refused.contains(&"BPF_OBJ_GET") && ending.contains("File exists");
    // When it asks what the kernel can do, a refusal is an answer; what it then does without, the kernel may miss.
    let is_missed =
        ["BPF_BTF_LOAD", "BPF_PROG_LOAD", "BPF_MAP_CREATE"].iter().any(|ask| refused.contains(ask));
    let says = ERRORS.iter().any(|(number, words)| *number == error && ending.contains(words));
    let is_denied = error == libc::EPERM && ending.contains("permission denied");
    ensure!(
        is_taken || is_missed || says || is_denied,
        "{refused:?}: it does not say what was refused: {ending}"
    );
    let names = ending.contains(&stage.pin_dir().display().to_string()) || ending.contains('`');
    ensure!(names, "{refused:?}: it names neither map, program nor pin: {ending}");
    Ok(())
}

fn are_served(stage: &Stage) -> Result<()> {
    client::http(&stage.client.namespace, vip()?, 2).context("new connections of a pod")?;
    client::http(&stage.node.namespace, vip()?, 1).context("a new connection of the node's own")?;
    Ok(())
}

/// Waits until everything is pinned that should be, and nothing else; everybody is served then.
fn is_whole(stage: &Stage, places: &BTreeSet<PathBuf>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let pinned: BTreeSet<_> = stage.pins()?.into_keys().collect();
        if pinned == *places {
            break;
        }
        let odd: Vec<_> = pinned.symmetric_difference(places).collect();
        ensure!(begun.elapsed() < Duration::from_secs(20), "{odd:?}: {}", stage.daemon.log());
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(stage.attached()? == [1, 1], "{:?}", stage.attached()?);
    are_served(stage)
}

/// Neither new connections nor open ones notice, nor is any program taken off, whatever becomes of the start.
#[test]
fn a_start_that_is_refused_a_call_leaves_traffic_alone_and_the_next_one_is_whole() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let mut open = Connection::open_many(&stage.client.namespace, vip()?, 1)?;
    let pinned = stage.pins()?;
    let places = pinned.keys().cloned().collect();
    stage.daemon.crash()?;
    let mut walk = Walk::default();
    for call in calls(&mut stage)? {
        stage.daemon.crash()?;
        let mut started = Start::Unharmed;
        let met = meanwhile(&mut open, || {
            started = start(&mut stage, call, &mut walk, are_served)?;
            are_served(&stage)
        });
        let met = met.with_context(|| format!("{call:?}, {started:?}: {}", stage.daemon.log()))?;
        walk.stall = walk.stall.max(met.stall);
        let (now, log) = (stage.pins()?, stage.daemon.log());
        ensure!(now == pinned, "{call:?}, {started:?}: {now:?} and not {pinned:?}: {log}");
        stage.daemon.crash()?;
        stage.daemon.launch().with_context(|| format!("the start after {call:?}"))?;
        is_whole(&stage, &places).with_context(|| format!("the start after {call:?}"))?;
        ensure!(stage.pins()? == pinned, "the start after {call:?}: {:?} and not {pinned:?}", stage.pins()?);
    }
    walk.tell();
    figure(&format!(
        "bpf(2) calls of a start over pins refused one by one: {walk}; every program stayed where it was, 0 connections \
         were lost, the longest exchange of an open one took {:.1?}",
        walk.stall
    ))?;
    ensure!(walk.ended > 0, "{walk:?}");
    Ok(())
}

/// What a first start leaves, when it ends on its way, the next one goes on with.
#[test]
fn a_nodes_first_start_that_is_refused_a_call_leaves_nothing_that_stops_the_next_one() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let places: BTreeSet<_> = stage.pins()?.into_keys().collect();
    let clean = |stage: &mut Stage| {
        stage.daemon.crash()?;
        stage.say(&["cleanup"]).map(drop)
    };
    clean(&mut stage)?;
    let mut walk = Walk::default();
    for call in calls(&mut stage)? {
        clean(&mut stage)?;
        let is_served = |stage: &Stage| {
            // To the kernel's EPERM there: somebody else has the hook for himself, who may stay.
            if stage.daemon.log().contains("that allows no other beside it") {
                return Ok(());
            }
            is_whole(stage, &places)
        };
        start(&mut stage, call, &mut walk, is_served).with_context(|| format!("{call:?}"))?;
        stage.daemon.crash()?;
        stage.daemon.launch().with_context(|| format!("the start after {call:?}"))?;
        is_whole(&stage, &places).with_context(|| format!("the start after {call:?}"))?;
    }
    walk.tell();
    figure(&format!("bpf(2) calls of a node's first start refused one by one: {walk}"))?;
    ensure!(walk.ended > 0, "{walk:?}");
    Ok(())
}
