//! What a program's lookups cost by themselves: for choosing between kinds of maps, sizes of keys, and one or two lookups.
//! A key of 16 bytes holds two IPv4 addresses, ports and protocol, one of 40 two of either family. And what the helpers
//! take that every translation has to call: the address written, the checksum of TCP or UDP brought up to date.

use mcs_proxy_tests::lookups::{self, Helper, Kind, Operation, Shape};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lookup {
    pub(crate) map: String,
    pub(crate) key_bytes: u32,
    /// Of these, one at random each time.
    pub(crate) entries: u32,
    pub(crate) find_ns: f64,
    /// An array has every entry.
    pub(crate) miss_ns: Option<f64>,
    /// Both together, in a map that is otherwise empty.
    pub(crate) insert_and_delete_ns: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) helper: String,
    pub(crate) ns: f64,
}

pub(crate) fn calls() -> Vec<Call> {
    let helpers = [Helper::StoreBytes, Helper::ReplaceChecksum];
    helpers
        .map(|helper| Call {
            helper: format!("{helper:?}"),
            ns: lookups::time_helper(helper).unwrap().as_secs_f64() * 1e9,
        })
        .to_vec()
}

pub(crate) fn rows() -> Vec<Lookup> {
    let arrays = [Kind::Array, Kind::PerCpuArray].map(|kind| (kind, 4));
    let hashes = [Kind::Hash, Kind::LruHash].map(|kind| [16, 40].map(|key| (kind, key)));
    let kinds = arrays.into_iter().chain(hashes.into_iter().flatten());
    kinds.flat_map(|(kind, key)| [1 << 10, 1 << 15, 1 << 19].map(|entries| row(kind, key, entries))).collect()
}

fn row(kind: Kind, key: u32, entries: u32) -> Lookup {
    // Twice the room: an LRU map's free elements are spread over the processors.
    let shape = Shape { kind, key, entries: entries * 2, used: entries };
    let ns = |operation| lookups::time(&shape, operation).unwrap().as_secs_f64() * 1e9;
    let is_hash = matches!(kind, Kind::Hash | Kind::LruHash);
    Lookup {
        map: format!("{kind:?}"),
        key_bytes: key,
        entries,
        find_ns: ns(Operation::Find),
        miss_ns: is_hash.then(|| ns(Operation::Miss)),
        insert_and_delete_ns: is_hash.then(|| ns(Operation::InsertAndDelete)),
    }
}

pub(crate) fn print(rows: &[Lookup], calls: &[Call]) {
    println!("\nmap          key bytes  entries  find ns  miss ns  insert and delete ns");
    for Lookup { map, key_bytes, entries, find_ns, miss_ns, insert_and_delete_ns } in rows {
        let or_none = |ns: &Option<f64>| ns.map_or_else(String::new, |ns| format!("{ns:.0}"));
        println!(
            "{map:12} {key_bytes:9} {entries:8} {find_ns:8.0} {:>8} {:>21}",
            or_none(miss_ns),
            or_none(insert_and_delete_ns)
        );
    }
    for Call { helper, ns } in calls {
        println!("{helper}: {ns:.0} ns");
    }
}
