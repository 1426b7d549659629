//! The roster of established flows: a queue through which they go round, so that those that have been silent for too
//! long are found without the daemon, a few with every promotion.
//!
//! The turn comes after the packet that was promoted, because the way to a promotion has used the stack up.
//!
//! An entry that is found to be in use goes back to the end; one whose flow has ended, or whose key is another
//! flow's by now, is dropped.

use crate::{
    flow::ticks,
    life,
    maps::{self, Tier},
};
use mcs_proxy_ebpf::abi::{Flow, RosterEntry, Tuple};

/// Entries that a promotion looks at: at least two, as it adds one; more if neither has left the roster.
const LOOKS: [u32; 2] = [2, 4];

/// What a CPU has of the roster.
#[repr(C)]
pub(crate) struct Turn {
    pub(crate) entry: RosterEntry,
    /// 1 if a promotion was tried since the last turn.
    due: u64,
}

/// Lets the next few have their turn, if a promotion was tried.
#[inline(always)]
pub(crate) fn turn_if_due() {
    if let Some(turn) = maps::turn()
        && turn.due != 0
    {
        turn.due = 0;
        turn_round();
    }
}

#[inline(never)]
fn turn_round() {
    let Some(Turn { entry, .. }) = maps::turn() else { return };
    let [at_least, at_most] = LOOKS;
    let mut left = false;
    for looked in 0..at_most {
        if (looked >= at_least && left) || !maps::take_from_roster(entry) {
            return;
        }
        if stays(entry) {
            // It comes from there: there is room, unless another CPU was faster. Then the daemon collects it.
            maps::put_in_roster(entry);
        } else {
            left = true;
        }
    }
}

/// Notes that a promotion is tried, whatever comes of it.
#[inline(always)]
pub(crate) fn want_turn() {
    if let Some(turn) = maps::turn() {
        turn.due = 1;
    }
}

/// Enters a flow that was just promoted; `false` if there is no room.
#[inline(always)]
pub(crate) fn enter(key: &Tuple, flow: &Flow) -> bool {
    let Some(turn) = maps::turn() else { return false };
    turn.entry.key = *key;
    turn.entry.isn = flow.isn;
    maps::put_in_roster(&turn.entry)
}

/// Whether the flow of an entry goes on. One that has been silent for too long is forgotten.
#[inline(always)]
fn stays(entry: &RosterEntry) -> bool {
    let Some(pointer) = maps::flow(Tier::Established, &entry.key) else { return false };
    // SAFETY: as in `flow::follow`.
    let flow = unsafe { &*pointer };
    if flow.isn != entry.isn || flow.vip != entry.key.peer || flow.client_port != entry.key.client_port {
        return false;
    }
    if !maps::silences().are_over(ticks(), flow.last_seen, flow.protocol, flow.state) {
        return true;
    }
    let Some(pair) = maps::pair() else { return true };
    pair.flow = *flow;
    pair.complete(&entry.key);
    life::forget(&entry.key, &pair.reply_key, pair.flow.interface);
    false
}
