//! How a flow is followed, and how it moves between its two places.

use super::{
    Here, Model, Segment,
    choice::Target,
    tables::{Place, Tables},
};
use crate::{
    abi::{Flow, FlowState, Protocol, Tuple, Verdict},
    transition::{TCP_RST, end_of, is_confirmation, is_syn, opens_another, reply_key_of, reply_of},
};

/// What a lookup of a packet from a pod finds.
pub(super) enum Known {
    Unknown,
    /// A flow that goes on: the packet goes where it says.
    Current(Target),
    /// A flow whose tuple a new one takes over.
    Outdated,
    /// A connection that user space has ended.
    Ended,
}

impl Model {
    /// Looks the packet's flow up and notes what it says about the flow.
    pub(super) fn find(&mut self, key: &Tuple, segment: &Segment, here: Here) -> Known {
        let is_established = self.tables.established.flows.contains_key(key);
        let Some(&flow) = self.tables.flow(key) else { return Known::Unknown };
        if self.is_outdated(&flow, segment, here) {
            return Known::Outdated;
        }
        let is_late = self.tables.is_late(flow.last_seen, here.now);
        let end = end_of(segment.tcp_flags, FlowState::CLIENT_FIN);
        let place = self.tables.place(is_established);
        let entry = place.flows.get_mut(key).expect("it was just found");
        if is_late {
            entry.last_seen = here.now;
        }
        entry.state = entry.state.with(end);
        let is_closed = entry.state.is_closed();
        if is_established {
            if end != FlowState::NEW && is_closed {
                self.tables.demote(key);
            } else if end == FlowState::NEW && is_late {
                self.tables.restore_reply(true, key);
            }
        } else {
            let ticks_per_second = self.tables.limits.ticks_per_second;
            let is_promoted = end == FlowState::NEW
                && is_confirmation(
                    segment.protocol,
                    segment.tcp_flags,
                    flow.state,
                    flow.isn,
                    here.now,
                    ticks_per_second,
                )
                && self.promote(key);
            if !is_promoted {
                self.tables.restore_reply(false, key);
            }
        }
        if flow.state.is_cut() {
            let Tables { established, transient, .. } = &mut self.tables;
            if let Some(entry) = established.flows.get_mut(key).or_else(|| transient.flows.get_mut(key)) {
                entry.state = entry.state.with(FlowState::RESET);
            }
            // A RST is never answered by another.
            if segment.tcp_flags & TCP_RST == 0 {
                return Known::Ended;
            }
        }
        Known::Current(Target::of(&flow))
    }

    fn is_outdated(&self, flow: &Flow, segment: &Segment, here: Here) -> bool {
        flow.interface != here.interface
            || match segment.protocol {
                Protocol::Tcp | Protocol::Sctp => {
                    let is_syn = is_syn(segment.protocol, segment.tcp_flags);
                    opens_another(is_syn, segment.sequence, flow.isn)
                }
                Protocol::Udp => !self.tables.state_of(flow.backend_id).keeps(flow.generation),
            }
    }

    /// Into the established pair, if there is room. What is in the transient pair stays there.
    fn promote(&mut self, key: &Tuple) -> bool {
        let mut flow = self.tables.transient.flows[key];
        let is_promoted = self.tables.take_share(flow.interface) && {
            flow.state = flow.state.with(FlowState::ESTABLISHED);
            let inserted = self.tables.insert_established(key, flow);
            if !inserted {
                self.tables.give_share(flow.interface);
            }
            inserted
        };
        if is_promoted {
            self.tables.transient.flows.insert(*key, flow);
        } else {
            self.counters.count(Verdict::NotPromoted);
        }
        is_promoted
    }
}

impl Tables {
    pub(super) fn place(&mut self, is_established: bool) -> &mut Place {
        if is_established { &mut self.established } else { &mut self.transient }
    }

    pub(super) fn is_late(&self, last_seen: u32, now: u32) -> bool {
        now.wrapping_sub(last_seen) >= self.limits.ticks_per_second
    }

    /// Both halves or neither.
    fn insert_established(&mut self, key: &Tuple, flow: Flow) -> bool {
        let reply_key = reply_key_of(key, &flow);
        let Place { flows, replies } = &mut self.established;
        let is_room = |entries: usize| entries < self.limits.flows;
        if replies.contains_key(&reply_key) || !is_room(replies.len()) || !is_room(flows.len()) {
            return false;
        }
        replies.insert(reply_key, super::reply::answered(reply_of(key, &flow)));
        flows.insert(*key, flow);
        true
    }

    /// A closed flow back to where newer ones may evict it.
    pub(super) fn demote(&mut self, key: &Tuple) {
        let Some(flow) = self.established.flows.remove(key) else { return };
        let reply_key = reply_key_of(key, &flow);
        self.transient.replies.insert(reply_key, super::reply::answered(reply_of(key, &flow)));
        self.transient.flows.insert(*key, flow);
        self.established.replies.remove(&reply_key);
        self.give_share(flow.interface);
    }

    /// Puts back the reply of a flow that has lost it.
    fn restore_reply(&mut self, is_established: bool, key: &Tuple) {
        let limit = if is_established { self.limits.flows } else { usize::MAX };
        let place = self.place(is_established);
        let flow = place.flows[key];
        let reply_key = reply_key_of(key, &flow);
        if !place.replies.contains_key(&reply_key) && place.replies.len() < limit {
            place.replies.insert(reply_key, reply_of(key, &flow));
        }
    }

    /// Removes a flow from wherever it is; `flow` says where its reply is.
    pub(super) fn forget(&mut self, key: &Tuple, reply_key: &Tuple, interface: u32) {
        if self.established.flows.remove(key).is_some() {
            self.give_share(interface);
            self.established.replies.remove(reply_key);
        }
        self.transient.flows.remove(key);
        self.transient.replies.remove(reply_key);
    }
}
