//! How a flow moves between its two places.
//!
//! Always in this order: into the new place, reply before flow; then out of the old one. Packets look in `flows`
//! first and then in `transient`, so that on its way a flow is in both for a moment, and never in neither.
//!
//! What moves a flow is compiled apart from what follows it: few packets do, and all would pay with their stack.

use crate::{
    flow::add_state,
    maps::{self, Insert, Tier},
    roster,
};
use core::ptr;
use mcs_proxy_ebpf::{
    abi::{Flow, FlowState, Reply, Tuple},
    transition::{reply_key_of, reply_of},
};

/// Makes a flow that its client has confirmed an established one: from now on nothing evicts it. `false` if there is
/// no room, or none left for its interface: then it stays where it is, and tries again with its next packet.
///
/// What is in the transient pair stays there and is evicted in time; `flows` is looked up first.
#[inline(never)]
pub(crate) fn promote(key: &Tuple, pointer: *mut Flow) -> bool {
    roster::want_turn();
    let Some(pair) = maps::pair() else { return false };
    pair.copy(key, pointer);
    let interface = pair.flow.interface;
    if !maps::take_share(interface) {
        maps::count_unpromoted();
        return false;
    }
    pair.flow.state = pair.flow.state.with(FlowState::ESTABLISHED);
    pair.reply.state = pair.reply.state.with(FlowState::ANSWERED);
    let inserted = maps::insert_reply(Tier::Established, &pair.reply_key, &pair.reply, Insert::New).is_ok();
    if inserted && maps::insert_flow(Tier::Established, key, &pair.flow, Insert::New).is_ok() {
        if roster::enter(key, &pair.flow) {
            add_state(pointer, FlowState::ESTABLISHED);
            return true;
        }
        maps::remove_flow(Tier::Established, key);
    }
    if inserted {
        maps::remove_reply(Tier::Established, &pair.reply_key);
    }
    maps::give_share(interface);
    maps::count_unpromoted();
    false
}

/// Moves a closed flow back: its late packets still find their way, and newer flows may evict it, with nobody's help.
#[inline(never)]
pub(crate) fn demote(key: &Tuple, pointer: *mut Flow) {
    let Some(pair) = maps::pair() else { return };
    pair.copy(key, pointer);
    pair.reply.state = pair.reply.state.with(FlowState::ANSWERED);
    let moved = put_reply(pair) && put_flow(key, pair);
    // If there is no room for it even there, it stays, and the daemon collects it.
    if moved && maps::remove_flow(Tier::Established, key) {
        maps::remove_reply(Tier::Established, &pair.reply_key);
        maps::give_share(pair.flow.interface);
    }
}

/// Puts a flow into the transient pair. What is there under its key and leads to the same place, as a rule this flow
/// from before its promotion or the last one of a client that uses its ports again, is brought up to date where it is:
/// an update through the map takes another element, and evicts for it. `false` if there is no room.
#[inline(always)]
pub(crate) fn put_flow(key: &Tuple, pair: &Pair) -> bool {
    if let Some(pointer) = maps::flow(Tier::Transient, key) {
        // SAFETY: as in `flow::follow`. What a packet is translated by stays as it is, and each of the other fields is
        // right by itself, whichever of the two flows it is of.
        let old = unsafe { &mut *pointer };
        let new = &pair.flow;
        if old.leads_as(new) {
            old.backend_id = new.backend_id;
            old.generation = new.generation;
            old.interface = new.interface;
            old.isn = new.isn;
            old.service = new.service;
            old.last_seen = new.last_seen;
            old.state = new.state;
            return true;
        }
    }
    maps::insert_flow(Tier::Transient, key, &pair.flow, Insert::Overwrite).is_ok()
}

/// Puts a flow's reply into the transient pair, as [`put_flow`] does the flow.
#[inline(always)]
pub(crate) fn put_reply(pair: &Pair) -> bool {
    if let Some(pointer) = maps::reply(Tier::Transient, &pair.reply_key) {
        // SAFETY: as in `put_flow`.
        let old = unsafe { &mut *pointer };
        let new = &pair.reply;
        if old.leads_as(new) {
            old.backend_id = new.backend_id;
            old.service = new.service;
            old.interface = new.interface;
            old.last_seen = new.last_seen;
            old.state = new.state;
            return true;
        }
    }
    maps::insert_reply(Tier::Transient, &pair.reply_key, &pair.reply, Insert::Overwrite).is_ok()
}

/// Puts back the reply of a flow that has lost it.
#[inline(never)]
pub(crate) fn restore_reply(tier: Tier, key: &Tuple, pointer: *mut Flow) {
    let Some(pair) = maps::pair() else { return };
    pair.copy(key, pointer);
    if maps::reply(tier, &pair.reply_key).is_none() {
        // An error means that another packet was faster, or that there is no room: the next packet tries again.
        let _lost = maps::insert_reply(tier, &pair.reply_key, &pair.reply, Insert::New);
    }
}

/// Removes a flow from wherever it is, and its reply, which is under `reply_key`.
#[inline(always)]
pub(crate) fn forget(key: &Tuple, reply_key: &Tuple, interface: u32) {
    if maps::remove_flow(Tier::Established, key) {
        maps::give_share(interface);
        maps::remove_reply(Tier::Established, reply_key);
    }
    maps::remove_flow(Tier::Transient, key);
    maps::remove_reply(Tier::Transient, reply_key);
}

/// Both halves of a flow, built where they need no room on the stack.
#[repr(C)]
pub(crate) struct Pair {
    pub(crate) flow: Flow,
    pub(crate) reply: Reply,
    pub(crate) reply_key: Tuple,
}

impl Pair {
    /// Makes it of an entry's flow. A copy: what is inserted must not change between reply and flow.
    #[inline(always)]
    pub(crate) fn copy(&mut self, key: &Tuple, pointer: *const Flow) {
        // SAFETY: as in `flow::follow`; the entry is memory of another map's. Told that they do not overlap, the compiler
        // copies words, and calls nothing.
        unsafe { ptr::copy_nonoverlapping(pointer, &raw mut self.flow, 1) };
        self.complete(key);
    }

    /// Makes the reply that belongs to the flow; `key` is the flow's own.
    #[inline(always)]
    pub(crate) fn complete(&mut self, key: &Tuple) {
        self.reply_key = reply_key_of(key, &self.flow);
        self.reply = reply_of(key, &self.flow);
    }
}
