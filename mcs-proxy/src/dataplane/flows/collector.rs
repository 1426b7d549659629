//! Forgets flows that have been silent for as long as their state allows.
//!
//! The programs date each flow about once a second. Both halves go together, and nothing goes that a packet has
//! renewed meanwhile. Transient flows would be evicted in time; they go too, so that what is listed is what there is.

use super::{Answers, Clock, FlowsError, Timeouts};
use crate::dataplane::{
    pins::PinDir,
    sys::{self, Access, MappedWords},
    table::HotAddress,
};
use aya::maps::{HashMap, MapData, MapError};
use mcs_proxy_ebpf::abi::{Direction, Flow, FlowState, MapName, Protocol, Reply, SHARES, Tuple, hot_bit};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// How long a flow may be silent whose interface is gone. More than none, because an interface may have come, and
/// opened flows, after the list of those that are there was made.
pub const GONE: Duration = Duration::from_secs(5);

/// Scans the flow maps. Only the daemon has one.
pub struct Collector {
    clock: Clock,
    established: Tier,
    transient: Tier,
    /// Established flows of each interface, which the programs count up.
    shares: MappedWords,
}

/// What a scan found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Established flows that are left.
    pub established: usize,
    /// The same by interface.
    pub by_interface: BTreeMap<u32, u64>,
    /// Transient flows that are left.
    pub transient: usize,
    /// Flows that were forgotten.
    pub expired: usize,
    /// Halves without their other, forgotten.
    pub orphans: usize,
    /// What is known of answers, from all flows.
    pub answers: Answers,
    /// Every VIP and backend address that flows refer to, those that this scan forgot included: for
    /// [`Table::release_hot`](crate::dataplane::table::Table::release_hot).
    pub referenced: BTreeSet<HotAddress>,
}

/// A pair of maps, each twice: to scan by batches and to change by key.
struct Tier {
    names: [MapName; 2],
    flows: HashMap<MapData, Tuple, Flow>,
    replies: HashMap<MapData, Tuple, Reply>,
    flows_fd: OwnedFd,
    replies_fd: OwnedFd,
}

/// What one scan has to know.
struct Judge<'a> {
    now: u32,
    clock: &'a Clock,
    timeouts: &'a Timeouts,
    interfaces: Option<&'a BTreeSet<u32>>,
}

impl Judge<'_> {
    fn is_over(&self, protocol: u8, state: FlowState, interface: u32, last_seen: u32) -> bool {
        let timeout = self.timeouts.of(Protocol::from_number(protocol), state);
        let is_gone = self.interfaces.is_some_and(|interfaces| !interfaces.contains(&interface));
        let age = self.clock.rate().age(self.now, last_seen);
        age > if is_gone { timeout.min(GONE) } else { timeout }
    }
}

impl Collector {
    pub fn open(dir: &PinDir) -> Result<Self, FlowsError> {
        Ok(Self {
            clock: Clock::open(dir)?,
            established: Tier::open(dir, [MapName::Flows, MapName::Replies])?,
            transient: Tier::open(dir, [MapName::Transient, MapName::TransientReplies])?,
            shares: dir.map_words(MapName::InterfaceFlows, Access::ReadWrite)?,
        })
    }

    /// Forgets flows that have been silent for too long, and soon those of interfaces that are not in `interfaces` (if
    /// given; as of just now): their pods are gone, and the next pod with such an address is another.
    ///
    /// Half a million flows take some hundred milliseconds; not for the task that writes the maps.
    pub fn collect(
        &mut self,
        timeouts: &Timeouts,
        interfaces: Option<&BTreeSet<u32>>,
    ) -> Result<Collected, FlowsError> {
        let judge = Judge { now: self.clock.now()?, clock: &self.clock, timeouts, interfaces };
        let mut collected = Collected::default();
        let shares = &self.shares;
        let left = self.established.collect(&judge, &mut collected, |flow| {
            shares.fetch_sub((flow.interface % SHARES) as usize, 1);
        })?;
        collected.established = left.values().sum::<u64>() as usize;
        collected.by_interface = left;
        collected.transient =
            self.transient.collect(&judge, &mut collected, |_| {})?.values().sum::<u64>() as usize;
        Ok(collected)
    }
}

impl Tier {
    fn open(dir: &PinDir, names: [MapName; 2]) -> Result<Self, FlowsError> {
        let access = Access::ReadWrite;
        let [flows, replies] = names;
        Ok(Self {
            names,
            flows: dir.open_as(flows, access)?,
            replies: dir.open_as(replies, access)?,
            flows_fd: dir.open(flows, access)?,
            replies_fd: dir.open(replies, access)?,
        })
    }

    /// Returns how many flows are left by interface, and calls `forgotten` for each that is not.
    fn collect(
        &mut self,
        judge: &Judge<'_>,
        collected: &mut Collected,
        forgotten: impl Fn(&Flow),
    ) -> Result<BTreeMap<u32, u64>, FlowsError> {
        // Old by themselves; those whose flow turns up are none.
        let mut orphans: BTreeMap<Tuple, Reply> = BTreeMap::new();
        scan(self.names[1], &self.replies_fd, |tuple: &Tuple, reply: &Reply| {
            if judge.is_over(reply.protocol, self.silence(reply), reply.interface, reply.last_seen) {
                orphans.insert(*tuple, *reply);
            }
        })?;
        let mut left = BTreeMap::<u32, u64>::new();
        let mut over: Vec<(Tuple, Flow)> = Vec::new();
        let mut references = References::new(&mut collected.referenced);
        scan(self.names[0], &self.flows_fd, |tuple: &Tuple, flow: &Flow| {
            if judge.is_over(flow.protocol, flow.state, flow.interface, flow.last_seen) {
                over.push((*tuple, *flow));
            } else {
                *left.entry(flow.interface).or_default() += 1;
                if !orphans.is_empty() {
                    orphans.remove(&reply_key(tuple, flow));
                }
            }
            collected.answers.note(flow, judge.clock.rate().age(judge.now, flow.last_seen));
            references.note((Direction::FromPod, flow.vip));
            references.note((Direction::ToPod, flow.backend));
        })?;
        for (tuple, flow) in &over {
            if self.forget(tuple, flow)? {
                forgotten(flow);
                collected.expired += 1;
            }
        }
        for (tuple, reply) in &orphans {
            // Most went with their flows.
            if self.replies.get(tuple, 0).is_ok_and(|current| current == *reply) {
                remove(&mut self.replies, self.names[1], tuple)?;
                collected.orphans += 1;
            }
        }
        Ok(left)
    }

    /// How far the flow of a reply has come, as far as the reply knows.
    const fn silence(&self, reply: &Reply) -> FlowState {
        if matches!(self.names[1], MapName::Replies) {
            FlowState::ANSWERED.with(FlowState::ESTABLISHED)
        } else {
            reply.state
        }
    }

    /// Unless a packet has renewed it since it was read, or another flow has taken its place.
    fn forget(&mut self, tuple: &Tuple, flow: &Flow) -> Result<bool, FlowsError> {
        match self.flows.get(tuple, 0) {
            Ok(current) if current == *flow => {}
            Ok(_) | Err(_) => return Ok(false),
        }
        if !remove(&mut self.flows, self.names[0], tuple)? {
            return Ok(false);
        }
        let key = reply_key(tuple, flow);
        let is_other_half = self.replies.get(&key, 0).is_ok_and(|reply| {
            (reply.vip, reply.vip_port, reply.client_port, reply.interface)
                == (flow.vip, tuple.peer_port, flow.client_port, flow.interface)
        });
        if is_other_half {
            remove(&mut self.replies, self.names[1], &key)?;
        }
        Ok(true)
    }
}

/// Gathers addresses, most of which come again and again: what was noted last in the same place needs no search.
struct References<'a> {
    all: &'a mut BTreeSet<HotAddress>,
    latest: Vec<Option<HotAddress>>,
}

impl<'a> References<'a> {
    const PLACES: usize = 1 << 14;

    fn new(all: &'a mut BTreeSet<HotAddress>) -> Self {
        Self { all, latest: vec![None; Self::PLACES] }
    }

    fn note(&mut self, reference: HotAddress) {
        let (word, mask) = hot_bit(reference.0, &reference.1);
        let place = (word as usize * 64 + mask.trailing_zeros() as usize) % Self::PLACES;
        if self.latest[place] != Some(reference) {
            self.latest[place] = Some(reference);
            self.all.insert(reference);
        }
    }
}

/// Where the other half of a flow is: replies are keyed by what is on the wire.
#[must_use]
pub fn reply_key(tuple: &Tuple, flow: &Flow) -> Tuple {
    Tuple::new(tuple.client, flow.wire_port, flow.backend, flow.backend_port, tuple.protocol)
}

fn scan<V: aya::Pod>(
    map: MapName,
    fd: &OwnedFd,
    mut visit: impl FnMut(&Tuple, &V),
) -> Result<(), FlowsError> {
    sys::for_each_batch(fd.as_fd(), |tuples: &[Tuple], values: &[V]| {
        tuples.iter().zip(values).for_each(|(tuple, value)| visit(tuple, value));
    })
    .map_err(|source| FlowsError::Scan { map: map.as_str(), source })
}

/// Whether it was there.
fn remove<V: aya::Pod>(
    map: &mut HashMap<MapData, Tuple, V>,
    name: MapName,
    key: &Tuple,
) -> Result<bool, FlowsError> {
    match map.remove(key) {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(source) => Err(FlowsError::Remove { map: name.as_str(), source }),
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Collector").field("clock", &self.clock).finish_non_exhaustive()
    }
}
