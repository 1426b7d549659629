//! VIPs that are ours with every port, so that whoever calls a port that no frontend has can be refused.
//!
//! A program looks for the frontend first and for what is said of the VIP then. So it is said no sooner than programs
//! are over that began before the VIP's frontends were entered, and no longer once the first of them is to be taken
//! out: else, when a Service is opted in or out, what is beneath us would lose a SYN to us.

use super::Table;
use crate::dataplane::{Operation, Transaction};
use mcs_proxy_ebpf::abi::{Address, Port, ServiceKey, VIP_WHOLE, VipFlags};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Whole {
    /// Of which the map says it.
    said: BTreeSet<Address>,
    /// Of which it is to say it after the next grace period.
    pending: BTreeSet<Address>,
    /// Frontends that there was no room for: what is beneath us may serve them.
    unfit: BTreeSet<ServiceKey>,
}

impl Whole {
    /// What the maps of an earlier daemon say.
    pub(super) fn inherit(vips: &BTreeMap<Address, VipFlags>) -> Self {
        let said = vips.iter().filter(|(_, flags)| **flags & VIP_WHOLE != 0).map(|(vip, _)| *vip).collect();
        Self { said, ..Self::default() }
    }

    pub(super) fn is_said(&self, vip: &Address) -> bool {
        self.said.contains(vip)
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn note_unfit(&mut self, key: ServiceKey) {
        self.unfit.insert(key);
    }

    /// Nothing but these is wanted.
    pub(super) fn keep_unfit(&mut self, wanted: &BTreeSet<ServiceKey>) {
        self.unfit.retain(|key| wanted.contains(key));
    }

    pub(super) fn note_fit(&mut self, key: &ServiceKey) {
        self.unfit.remove(key);
    }
}

impl Table {
    /// Before anything that may hand a port back to what is beneath us.
    pub(super) fn unsay_whole(&mut self, vip: Address, transaction: &mut Transaction) {
        self.whole.pending.remove(&vip);
        if self.whole.said.remove(&vip) {
            transaction.push(Operation::SetVip { vip, flags: Some(0) });
        }
    }

    /// After all of a plan's changes.
    pub(super) fn judge_whole(&mut self, vip: Address, transaction: &mut Transaction) {
        if !self.is_whole(vip) {
            self.unsay_whole(vip, transaction);
        } else if !self.whole.said.contains(&vip) {
            self.whole.pending.insert(vip);
        }
    }

    /// After a grace period.
    pub(super) fn say_whole(&mut self, transaction: &mut Transaction) {
        for vip in std::mem::take(&mut self.whole.pending) {
            if self.is_whole(vip) {
                self.whole.said.insert(vip);
                transaction.push(Operation::SetVip { vip, flags: Some(VIP_WHOLE) });
            }
        }
    }

    fn is_whole(&self, vip: Address) -> bool {
        let mut entries = self.entries.range(keys_of(vip)).map(|(_, entry)| entry).peekable();
        entries.peek().is_some()
            && entries.all(|entry| entry.owns_vip)
            && self.whole.unfit.range(keys_of(vip)).next().is_none()
    }
}

fn keys_of(vip: Address) -> RangeInclusive<ServiceKey> {
    ServiceKey::new(vip, Port::from_raw(0), 0)..=ServiceKey::new(vip, Port::from_raw(u16::MAX), u8::MAX)
}
