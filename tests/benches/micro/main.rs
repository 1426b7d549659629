//! What a program costs, as a ratio to an empty program of the same type in the same run: BPF_PROG_TEST_RUN on the
//! real programs, loaded with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON alone.
//!
//! - *warm*: one packet, a million times, with nothing else in the maps. An established packet goes back and forth
//!   between two frontends that translate to each other; a new flow goes to one of 64 frontends. Both once more while
//!   someone listens to all events.
//! - *filled*: 64k frontends and 512k flows, and with every packet another of them, at random: see [`chain`].
//!   Misses leave the packet as it is, so that 50,000 strangers' packets are run once each, the empty program's too.
//!
//! Beneath stands what the kernel takes for a lookup in maps of several kinds and sizes: see [`lookups`].
#![expect(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

mod chain;
mod lookups;
mod measure;
mod table;

#[path = "../../tests/packets/programs.rs"]
#[expect(dead_code, reason = "shared with the packet tables, which need more of it")]
mod programs;
#[path = "../../tests/packets/wire.rs"]
#[expect(dead_code, reason = "shared with the packet tables, which need more of it")]
mod wire;

use chain::Family;
use table::Table;

fn main() {
    let is_asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let rows = Family::ALL.into_iter().flat_map(measure::rows).collect();
    let table = Table { rows, lookups: lookups::rows(), calls: lookups::calls() };
    if is_asked("--json") {
        println!("{}", serde_json::to_string(&table).unwrap());
    } else {
        table.print();
    }
    if is_asked("--compare") {
        println!();
        table.print_beside(&Table::read_baseline());
    }
    if is_asked("--save") {
        table.save_as_baseline();
    }
}
