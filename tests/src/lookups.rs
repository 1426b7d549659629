//! What the kernel takes to look something up in a map, to put something in, and to change a packet: small programs,
//! written out instruction by instruction, run by BPF_PROG_TEST_RUN.

use crate::{bpf::instruction, sys};
use anyhow::{Context, Result};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

/// Operations of one run of a program: so many that its beginning and end hardly count.
const UNROLLED: usize = 16;
/// Bytes of a value: about those of a flow.
const VALUE: u32 = 72;
/// Measurements, of which the fastest counts, which is the least disturbed.
const ROUNDS: usize = 7;

/// `enum bpf_map_type` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Hash = 1,
    Array = 2,
    PerCpuArray = 6,
    LruHash = 9,
}

/// What is done to an entry at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// One that is there.
    Find,
    /// One that is not.
    Miss,
    /// Put in, and taken out again.
    InsertAndDelete,
}

/// A map of values as long as a flow.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub kind: Kind,
    /// Bytes of a key, a multiple of four.
    pub key: u32,
    /// How many fit.
    pub entries: u32,
    /// Keys are taken of so many, a power of two; all of them are there but for [`Operation::InsertAndDelete`].
    pub used: u32,
}

/// How long the operation takes, without what making up a key takes.
///
/// # Errors
/// The kernel's.
pub fn time(shape: &Shape, operation: Operation) -> Result<Duration> {
    let Shape { kind, key, entries, used } = *shape;
    let map = sys::create_map(kind as u32, key, VALUE, entries).with_context(|| format!("{shape:?}"))?;
    if matches!(kind, Kind::Hash | Kind::LruHash) && operation != Operation::InsertAndDelete {
        let (mut bytes, value) = (vec![0_u8; key as usize], [0_u8; VALUE as usize]);
        for number in 0..used {
            bytes[..4].copy_from_slice(&number.to_ne_bytes());
            sys::update(&map, &bytes, &value).context("filling the map")?;
        }
    }
    let state = sys::create_counter()?;
    let load = |calls: &[Call]| {
        let program = program(shape, &map, &state, operation == Operation::Miss, calls);
        sys::load_classifier(&program).with_context(|| format!("{shape:?}, {operation:?}"))
    };
    let calls: &[Call] = match operation {
        Operation::Find | Operation::Miss => &[Call::Lookup],
        Operation::InsertAndDelete => &[Call::Update, Call::Delete],
    };
    // So often that each entry is met about twice.
    per_operation(&load(&[])?, &load(calls)?, used.max(1 << 16) / UNROLLED as u32 * 2)
}

/// What changes a packet, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// `bpf_skb_store_bytes`, 16 of them, as a translation writes addresses, ports and the IPv4 header's checksum.
    StoreBytes = 9,
    /// `bpf_l4_csum_replace`, with the difference of two addresses.
    ReplaceChecksum = 11,
}

/// How long a call of the helper takes.
///
/// # Errors
/// The kernel's.
pub fn time_helper(helper: Helper) -> Result<Duration> {
    let load =
        |calls: usize| sys::load_classifier(&calling(helper, calls)).with_context(|| format!("{helper:?}"));
    per_operation(&load(0)?, &load(UNROLLED)?, 1 << 16)
}

/// How much longer an operation makes a program.
fn per_operation(without: &OwnedFd, with: &OwnedFd, repeat: u32) -> Result<Duration> {
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (fastest, program) in fastest.iter_mut().zip([without, with]) {
            *fastest = (*fastest).min(sys::test_run(program, repeat)?);
        }
    }
    Ok(fastest[1].saturating_sub(fastest[0]) / UNROLLED as u32)
}

/// Calls the helper so often on the packet.
fn calling(helper: Helper, calls: usize) -> Vec<u64> {
    /// Of an IPv4 header behind one of Ethernet.
    const LIFETIME: i32 = 22;
    /// Of TCP behind both.
    const CHECKSUM: i32 = 50;
    /// `BPF_F_PSEUDO_HDR`; the lower bits, a size, are zero for a difference.
    const PSEUDO_HEADER: i32 = 1 << 4;
    let [r0, r1, r2, r3, r4, r5, r6, r10] = [0, 1, 2, 3, 4, 5, 6, 10];
    let mut program = vec![
        instruction(0xbf, r6, r1, 0, 0),
        instruction(0x7a, r10, 0, -8, 0),
        instruction(0x7a, r10, 0, -16, 0),
    ];
    for _ in 0..calls {
        program.push(instruction(0xbf, r1, r6, 0, 0));
        program.extend(match helper {
            Helper::StoreBytes => [
                instruction(0xb7, r2, 0, 0, LIFETIME),
                instruction(0xbf, r3, r10, 0, 0),
                instruction(0x07, r3, 0, 0, -16),
                instruction(0xb7, r4, 0, 0, 16),
                instruction(0xb7, r5, 0, 0, 0),
            ],
            Helper::ReplaceChecksum => [
                instruction(0xb7, r2, 0, 0, CHECKSUM),
                instruction(0xb7, r3, 0, 0, 0),
                instruction(0xb7, r4, 0, 0, 0x0102_0304),
                instruction(0xb7, r5, 0, 0, PSEUDO_HEADER),
                instruction(0x05, 0, 0, 0, 0), // On to the next one.
            ],
        });
        program.push(instruction(0x85, 0, 0, 0, helper as i32));
    }
    program.extend([instruction(0xb7, r0, 0, 0, 0), instruction(0x95, 0, 0, 0, 0)]);
    program
}

/// Number of a helper (include/uapi/linux/bpf.h).
#[derive(Clone, Copy)]
enum Call {
    Lookup = 1,
    Update = 2,
    Delete = 3,
}

/// Keys follow one another as the numbers of a linear congruential generator do, whose state outlives a run.
fn program(shape: &Shape, map: &OwnedFd, state: &OwnedFd, absent: bool, calls: &[Call]) -> Vec<u64> {
    /// Knuth's, of MMIX.
    const FACTOR: u64 = 6_364_136_223_846_793_005;
    let [r0, r1, r2, r3, r4, r6, r7, r8, r10] = [0, 1, 2, 3, 4, 6, 7, 8, 10];
    let key = -(shape.key.cast_signed()) as i16;
    let value = key - VALUE as i16;
    // The map of the state is an array of one number, whose key is 0.
    let mut program: Vec<u64> =
        (value..0).step_by(4).map(|offset| instruction(0x62, r10, 0, offset, 0)).collect();
    program.extend([
        instruction(0xbf, r2, r10, 0, 0),
        instruction(0x07, r2, 0, 0, -4),
        instruction(0x18, r1, 1, 0, state.as_raw_fd()),
        0,
        instruction(0x85, 0, 0, 0, Call::Lookup as i32),
        instruction(0x55, r0, 0, 1, 0),
        instruction(0x95, 0, 0, 0, 0),
        instruction(0xbf, r6, r0, 0, 0),
        instruction(0x79, r7, r6, 0, 0),
        instruction(0x18, r8, 0, 0, (FACTOR as u32).cast_signed()),
        (FACTOR >> 32) << 32,
    ]);
    if absent {
        // The second word is 0 in all that is there.
        program.push(instruction(0x62, r10, 0, key + 4, 1));
    }
    for _ in 0..UNROLLED {
        program.extend([
            instruction(0x2f, r7, r8, 0, 0),
            instruction(0x07, r7, 0, 0, 1),
            instruction(0xbf, r1, r7, 0, 0),
            instruction(0x77, r1, 0, 0, 33),
            instruction(0x57, r1, 0, 0, shape.used.cast_signed() - 1),
            instruction(0x63, r10, r1, key, 0),
        ]);
        for call in calls {
            program.extend([
                instruction(0xbf, r2, r10, 0, 0),
                instruction(0x07, r2, 0, 0, i32::from(key)),
                instruction(0xbf, r3, r10, 0, 0),
                instruction(0x07, r3, 0, 0, i32::from(value)),
                instruction(0xb7, r4, 0, 0, 0),
                instruction(0x18, r1, 1, 0, map.as_raw_fd()),
                0,
                instruction(0x85, 0, 0, 0, *call as i32),
            ]);
            if matches!(call, Call::Lookup) {
                // Who looks something up reads it.
                program.extend([instruction(0x15, r0, 0, 1, 0), instruction(0x61, r1, r0, 0, 0)]);
            }
        }
    }
    program.extend([
        instruction(0x7b, r6, r7, 0, 0),
        instruction(0xb7, r0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    program
}
