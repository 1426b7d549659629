//! Old flows, and what flows refer to.
//!
//! The programs date each flow about once a second; here it is forgotten when it has been silent for as long as its
//! state allows. Both halves go together, and nothing goes that a packet has renewed meanwhile.

use super::{
    pins::{PinDir, PinsError},
    sys::{self, Access, SysError},
    table::HotAddress,
};
use aya::{
    maps::{HashMap, MapData, MapError},
    programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions},
};
use mcs_proxy_ebpf::abi::{Direction, Flow, FlowState, MapName, Protocol, Reply, TICK_SHIFT, Tuple};
use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error("the pinned clock program")]
    Clock(#[source] ProgramError),
    #[error("map `{map}`: {source}")]
    Scan { map: &'static str, source: SysError },
    #[error("map `{map}`: {source}")]
    Remove { map: &'static str, source: MapError },
    #[error("the kernel's clock: {0}")]
    Hz(#[source] SysError),
}

/// How long a flow may be silent before it is forgotten. The defaults are those of netfilter
/// (`nf_conntrack_tcp_timeout_*`, `nf_conntrack_udp_timeout*`), which kube-proxy's connections have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_new: Duration,
    pub tcp_established: Duration,
    /// Any protocol.
    pub closing: Duration,
    pub udp_new: Duration,
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_new: Duration::from_secs(120),
            tcp_established: Duration::from_secs(5 * 86_400),
            closing: Duration::from_secs(120),
            udp_new: Duration::from_secs(30),
            udp: Duration::from_secs(180),
        }
    }
}

impl Timeouts {
    #[must_use]
    pub const fn of(&self, protocol: Option<Protocol>, state: Option<FlowState>) -> Duration {
        match (protocol, state) {
            (_, Some(FlowState::Closing)) => self.closing,
            (Some(Protocol::Tcp | Protocol::Sctp), Some(FlowState::Established)) => self.tcp_established,
            (Some(Protocol::Tcp | Protocol::Sctp), Some(FlowState::New) | None) => self.tcp_new,
            (Some(Protocol::Udp) | None, Some(FlowState::Established)) => self.udp,
            (Some(Protocol::Udp) | None, Some(FlowState::New) | None) => self.udp_new,
        }
    }
}

/// The unit of the programs' dates: jiffies, shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRate {
    hz: u32,
}

impl TickRate {
    #[must_use]
    pub const fn new(hz: u32) -> Self {
        Self { hz }
    }

    pub fn of_this_kernel() -> Result<Self, SysError> {
        Ok(Self::new(sys::kernel_hz()?))
    }

    /// How long ago `then` was at `now`. The tick wraps; and a packet may have dated a flow after `now` was read, so
    /// what lies ahead is just now.
    #[must_use]
    pub fn age(self, now: u32, then: u32) -> Duration {
        let ticks = now.wrapping_sub(then);
        if ticks > u32::MAX / 2 {
            return Duration::ZERO;
        }
        let jiffies = u64::from(ticks) << TICK_SHIFT;
        Duration::from_millis(jiffies * 1000 / u64::from(self.hz.max(1)))
    }
}

/// Tells the programs' time.
pub struct Clock {
    program: SchedClassifier,
    rate: TickRate,
}

impl Clock {
    pub fn open(dir: &PinDir) -> Result<Self, FlowsError> {
        let path = dir.clock();
        if !path.exists() {
            return Err(PinsError::NothingPinned { path: dir.path().to_owned() }.into());
        }
        let program = SchedClassifier::from_pin(path).map_err(FlowsError::Clock)?;
        Ok(Self { program, rate: TickRate::of_this_kernel().map_err(FlowsError::Hz)? })
    }

    /// In ticks, as flows are dated.
    pub fn now(&self) -> Result<u32, FlowsError> {
        // The kernel runs a classifier on no less than an Ethernet header (net/bpf/test_run.c).
        let frame = [0_u8; 14];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        Ok(self.program.test_run(options).map_err(FlowsError::Clock)?.return_value)
    }

    #[must_use]
    pub const fn rate(&self) -> TickRate {
        self.rate
    }
}

/// How long a flow may be silent whose interface is gone. More than none, because an interface may have come, and
/// opened flows, after the list of those that are there was made.
const GONE: Duration = Duration::from_secs(5);

/// Scans the flow maps. Only the daemon has one.
pub struct Collector {
    clock: Clock,
    flows: HashMap<MapData, Tuple, Flow>,
    replies: HashMap<MapData, Tuple, Reply>,
    /// For scans by batches.
    scans: [(&'static str, OwnedFd); 2],
    transient: OwnedFd,
}

/// What a scan found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Flows that are left.
    pub flows: usize,
    /// Flows that were forgotten.
    pub expired: usize,
    /// Halves without their other, forgotten.
    pub orphans: usize,
    /// Every VIP and backend address that flows refer to, those that this scan forgot included: for
    /// [`Table::release_hot`](super::table::Table::release_hot).
    pub referenced: BTreeSet<HotAddress>,
}

impl Collector {
    pub fn open(dir: &PinDir) -> Result<Self, FlowsError> {
        let access = Access::ReadWrite;
        Ok(Self {
            clock: Clock::open(dir)?,
            flows: dir.open_as(MapName::Flows, access)?,
            replies: dir.open_as(MapName::Replies, access)?,
            scans: [
                ("flows", dir.open(MapName::Flows, access)?),
                ("replies", dir.open(MapName::Replies, access)?),
            ],
            transient: dir.open(MapName::Transient, access)?,
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
        let now = self.clock.now()?;
        let rate = self.clock.rate;
        let is_over = |protocol: u8, state: u8, interface: u32, last_seen: u32| {
            let timeout = timeouts.of(Protocol::from_number(protocol), FlowState::from_number(state));
            let age = rate.age(now, last_seen);
            let is_gone = interfaces.is_some_and(|interfaces| !interfaces.contains(&interface));
            age > if is_gone { timeout.min(GONE) } else { timeout }
        };
        let mut collected = Collected::default();
        let mut over: Vec<(Tuple, Flow)> = Vec::new();
        // The wire tuples of flows that stay.
        let mut answered: HashSet<Tuple> = HashSet::new();
        scan(&self.scans[0], |tuple: &Tuple, flow: &Flow| {
            if is_over(flow.protocol, flow.state, flow.interface, flow.last_seen) {
                over.push((*tuple, *flow));
            } else {
                collected.flows += 1;
                answered.insert(reply_key(tuple, flow));
            }
            refer(&mut collected.referenced, flow);
        })?;
        let mut orphans: Vec<(Tuple, Reply)> = Vec::new();
        scan(&self.scans[1], |tuple: &Tuple, reply: &Reply| {
            if !answered.contains(tuple)
                && is_over(reply.protocol, reply.state, reply.interface, reply.last_seen)
            {
                orphans.push((*tuple, *reply));
            }
            refer_reply(&mut collected.referenced, reply);
        })?;
        let transient = ("transient", &self.transient);
        sys::for_each_batch(transient.1.as_fd(), |_: &[Tuple], flows: &[Flow]| {
            flows.iter().for_each(|flow| refer(&mut collected.referenced, flow));
        })
        .map_err(|source| FlowsError::Scan { map: transient.0, source })?;

        for (tuple, flow) in &over {
            if self.forget(tuple, flow)? {
                collected.expired += 1;
            }
        }
        for (tuple, reply) in &orphans {
            // Most went with their flows.
            if self.replies.get(tuple, 0).is_ok_and(|current| current == *reply) {
                remove(&mut self.replies, "replies", tuple)?;
                collected.orphans += 1;
            }
        }
        Ok(collected)
    }

    /// Unless a packet has renewed it since it was read, or another flow has taken its place.
    fn forget(&mut self, tuple: &Tuple, flow: &Flow) -> Result<bool, FlowsError> {
        match self.flows.get(tuple, 0) {
            Ok(current) if current == *flow => {}
            Ok(_) | Err(_) => return Ok(false),
        }
        remove(&mut self.flows, "flows", tuple)?;
        let key = reply_key(tuple, flow);
        let is_other_half = self.replies.get(&key, 0).is_ok_and(|reply| {
            (reply.vip, reply.vip_port, reply.interface) == (flow.vip, flow.vip_port, flow.interface)
        });
        if is_other_half {
            remove(&mut self.replies, "replies", &key)?;
        }
        Ok(true)
    }
}

/// Where the other half of a flow is: `replies` is keyed by what is on the wire.
#[must_use]
pub fn reply_key(tuple: &Tuple, flow: &Flow) -> Tuple {
    Tuple::new(tuple.client, tuple.client_port, flow.backend, flow.backend_port, tuple.protocol)
}

fn refer(referenced: &mut BTreeSet<HotAddress>, flow: &Flow) {
    referenced.insert((Direction::FromPod, flow.vip));
    referenced.insert((Direction::ToPod, flow.backend));
}

fn refer_reply(referenced: &mut BTreeSet<HotAddress>, reply: &Reply) {
    referenced.insert((Direction::FromPod, reply.vip));
    referenced.insert((Direction::ToPod, reply.backend));
}

fn scan<V: aya::Pod>(
    (map, fd): &(&'static str, OwnedFd),
    mut visit: impl FnMut(&Tuple, &V),
) -> Result<(), FlowsError> {
    sys::for_each_batch(fd.as_fd(), |tuples: &[Tuple], values: &[V]| {
        tuples.iter().zip(values).for_each(|(tuple, value)| visit(tuple, value));
    })
    .map_err(|source| FlowsError::Scan { map, source })
}

fn remove<V: aya::Pod>(
    map: &mut HashMap<MapData, Tuple, V>,
    name: &'static str,
    key: &Tuple,
) -> Result<(), FlowsError> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(source) => Err(FlowsError::Remove { map: name, source }),
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clock").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Collector").field("clock", &self.clock).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_survive_the_wrapping_of_the_tick() {
        // 250 Hz >> 6: a tick is 256 ms.
        let rate = TickRate::new(250);
        for (now, then, milliseconds) in [
            (10, 10, 0),
            (14, 10, 1024),
            (2, u32::MAX - 1, 4 * 256),
            (10, 11, 0),
            (0, 5, 0),
            (u32::MAX / 2, 0, u64::from(u32::MAX / 2) * 256),
        ] {
            assert_eq!(rate.age(now, then), Duration::from_millis(milliseconds), "{now} - {then}");
        }
        assert_eq!(TickRate::new(100).age(1, 0), Duration::from_millis(640));
        assert_eq!(TickRate::new(1000).age(1, 0), Duration::from_millis(64));
        assert_eq!(TickRate::new(0).age(0, 0), Duration::ZERO);
    }

    #[test]
    fn silence_is_allowed_by_protocol_and_state() {
        let timeouts = Timeouts::default();
        for (protocol, state, seconds) in [
            (Some(Protocol::Tcp), Some(FlowState::New), 120),
            (Some(Protocol::Tcp), Some(FlowState::Established), 432_000),
            (Some(Protocol::Tcp), Some(FlowState::Closing), 120),
            (Some(Protocol::Udp), Some(FlowState::New), 30),
            (Some(Protocol::Udp), Some(FlowState::Established), 180),
            (Some(Protocol::Udp), None, 30),
            (None, Some(FlowState::Established), 180),
            (None, None, 30),
        ] {
            assert_eq!(timeouts.of(protocol, state), Duration::from_secs(seconds), "{protocol:?} {state:?}");
        }
    }
}
