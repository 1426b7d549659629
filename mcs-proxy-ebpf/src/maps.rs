//! The maps. They are private to this file: the rest of the programs goes through the getters, which say what a
//! lookup means. Sizes are those of the contract's defaults; the loader overrides them.

use crate::{
    aside::Aside,
    hop::{Asking, Hop, HopKey},
    life::Pair,
    lookup::Scratch,
    roster::Turn,
};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::SkStorage,
    helpers::generated::bpf_map_pop_elem,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, Queue},
    programs::{SockAddrContext, TcContext},
};
use core::{
    intrinsics::{AtomicOrdering, atomic_xadd, atomic_xchg},
    ptr,
};
use mcs_proxy_ebpf::abi::{
    Address, Affinity, AffinityKey, BackendCounters, BackendState, Direction, Element, Event, Flow, Fragment,
    FragmentKey, FrontendWord, HOT_WORDS, INTERFACES, MapName, MapSizes, Place, REJECTS_PER_TICK, Reply,
    RosterEntry, SHARES, STAGES, ServiceCounters, ServiceKey, Silences, SocketBackend, SocketKey,
    SocketOrigin, SocketScope, Stage, Switch, Tuple, VERDICTS, VIP_WHOLE, Verdict, VipFlags, hot_bit,
};

const SIZES: MapSizes = MapSizes::DEFAULT;

/// How many established flows an interface may have: the loader sets it.
#[unsafe(no_mangle)]
static FLOWS_PER_INTERFACE: Global<u32> = Global::new(SIZES.flows / 4);
/// Ticks in a second, rounded up: the loader sets it, for only user space knows the kernel's HZ.
#[unsafe(no_mangle)]
static TICKS_PER_SECOND: Global<u32> = Global::new(4);

/// How long established flows may be silent: the loader sets it.
#[unsafe(no_mangle)]
static SILENCES: Global<Silences> = Global::new(Silences {
    tcp_established: 4 * 432_000,
    tcp_half_closed: 4 * 120,
    tcp_closed: 4 * 120,
    udp_stream: 4 * 120,
    sctp_established: 4 * 210,
    sctp_closed: 4 * 10,
});

#[inline(always)]
pub(crate) fn silences() -> Silences {
    SILENCES.load()
}

/// For how many ticks no daemon may have looked after the maps before new flows pass; 0: for ever. The loader sets it.
#[unsafe(no_mangle)]
static ORPHAN_TIMEOUT: Global<u32> = Global::new(0);

#[inline(always)]
pub(crate) fn orphan_timeout() -> u32 {
    ORPHAN_TIMEOUT.load()
}

/// Which sockets the socket path serves: the loader sets it.
#[unsafe(no_mangle)]
static SOCKET_SCOPE: Global<u32> = Global::new(SocketScope::Host as u32);
/// The node's own network namespace, as `SO_NETNS_COOKIE` numbers it: the loader sets it.
#[unsafe(no_mangle)]
static HOST_NETNS: Global<u64> = Global::new(0);
/// Whether the kernel has `bpf_set_retval` (5.18): the loader sets it.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u32> = Global::new(1);

/// Whether the socket path serves this network namespace.
#[inline(always)]
pub(crate) fn serves_namespace(cookie: u64) -> bool {
    SOCKET_SCOPE.load() == SocketScope::All as u32 || is_host_namespace(cookie)
}

#[inline(always)]
pub(crate) fn is_host_namespace(cookie: u64) -> bool {
    cookie == HOST_NETNS.load()
}

#[inline(always)]
pub(crate) fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

/// Whether packets between pods of this node go past the host: the loader sets it.
#[unsafe(no_mangle)]
static REDIRECT: Global<u32> = Global::new(0);

#[inline(always)]
pub(crate) fn redirects() -> bool {
    REDIRECT.load() != 0
}

/// The addresses by which a pod that calls itself seems to be called: the loader sets them.
#[unsafe(no_mangle)]
static HAIRPIN_V4: Global<Address> = Global::new(Address::UNSPECIFIED);
#[unsafe(no_mangle)]
static HAIRPIN_V6: Global<Address> = Global::new(Address::UNSPECIFIED);

/// By which address a pod that calls itself seems to be called.
#[inline(always)]
pub(crate) fn hairpin_address(v4: bool) -> Address {
    if v4 { HAIRPIN_V4.load() } else { HAIRPIN_V6.load() }
}

/// How many ticks a second has.
#[inline(always)]
pub(crate) fn ticks_per_second() -> u32 {
    TICKS_PER_SECOND.load()
}

#[map(name = "hot")]
static HOT: Array<u64> = Array::with_max_entries(HOT_WORDS, BPF_F_MMAPABLE);
#[map(name = "services")]
static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(SIZES.frontends, 0);
#[map(name = "vips")]
static VIPS: HashMap<Address, VipFlags> = HashMap::with_max_entries(SIZES.frontends, 0);
#[map(name = "frontends")]
static FRONTENDS: Array<FrontendWord> = Array::with_max_entries(SIZES.frontends, BPF_F_MMAPABLE);
#[map(name = "backends")]
static BACKENDS: Array<Element> = Array::with_max_entries(SIZES.elements, BPF_F_MMAPABLE);
#[map(name = "backend_state")]
static BACKEND_STATE: Array<u64> = Array::with_max_entries(SIZES.backend_ids, BPF_F_MMAPABLE);
#[map(name = "cursors")]
static CURSORS: Array<u64> = Array::with_max_entries(SIZES.frontends, 0);
// Half a million flows would take 150 MB if they were allocated ahead.
#[map(name = "flows")]
static FLOWS: HashMap<Tuple, Flow> = HashMap::with_max_entries(SIZES.flows, BPF_F_NO_PREALLOC);
#[map(name = "replies")]
static REPLIES: HashMap<Tuple, Reply> = HashMap::with_max_entries(SIZES.flows, BPF_F_NO_PREALLOC);
#[map(name = "transient")]
static TRANSIENT: LruHashMap<Tuple, Flow> = LruHashMap::with_max_entries(SIZES.transient, 0);
#[map(name = "transient_replies")]
static TRANSIENT_REPLIES: LruHashMap<Tuple, Reply> = LruHashMap::with_max_entries(SIZES.transient, 0);
#[map(name = "roster")]
static ROSTER: Queue<RosterEntry> = Queue::with_max_entries(SIZES.of(MapName::Roster), 0);
#[map(name = "heartbeat")]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "affinity")]
static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(SIZES.affinity, 0);
// Not of the contract: nobody else sees it, so it is not pinned.
#[map(name = "pair")]
static PAIR: PerCpuArray<Pair> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "aside")]
static ASIDE: PerCpuArray<Aside> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "turn")]
static TURN: PerCpuArray<Turn> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "hops")]
static HOPS: LruHashMap<HopKey, Hop> = LruHashMap::with_max_entries(INTERFACES * 4, 0);
#[map(name = "asking")]
static ASKING: PerCpuArray<Asking> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(SIZES.fragments, 0);
#[map(name = "interface_flows")]
static INTERFACE_FLOWS: Array<u64> = Array::with_max_entries(SHARES, BPF_F_MMAPABLE);
#[map(name = "rejects")]
static REJECTS: Array<u64> = Array::with_max_entries(SHARES, 0);
#[map(name = "interfaces")]
static PLACES: HashMap<u32, Place> = HashMap::with_max_entries(INTERFACES, BPF_F_NO_PREALLOC);
#[map(name = "stages")]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(STAGES, 0);
#[map(name = "service_counters")]
static SERVICE_COUNTERS: PerCpuArray<ServiceCounters> = PerCpuArray::with_max_entries(SIZES.frontends, 0);
#[map(name = "backend_counters")]
static BACKEND_COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(SIZES.backend_ids, 0);
#[map(name = "verdicts")]
static VERDICT_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICTS, 0);
#[map(name = "socket_backends")]
static SOCKET_BACKENDS: LruHashMap<SocketKey, SocketBackend> = LruHashMap::with_max_entries(SIZES.sockets, 0);
#[map(name = "socket_origins")]
static SOCKET_ORIGINS: LruHashMap<SocketKey, SocketOrigin> = LruHashMap::with_max_entries(SIZES.sockets, 0);
#[btf_map(name = "socket_peers")]
static SOCKET_PEERS: SkStorage<SocketOrigin> = SkStorage::new();
#[map(name = "events")]
static EVENTS: Array<Event> = Array::with_max_entries(SIZES.of(MapName::Events), BPF_F_MMAPABLE);
#[map(name = "event")]
static EVENT: PerCpuArray<Event> = PerCpuArray::with_max_entries(1, 0);

/// Until when someone listens to events of this kind. 0: nobody ever did.
#[inline(always)]
pub(crate) fn event_lease(kind: u32) -> u64 {
    let Some(switch) = EVENTS.get_ptr(0) else { return 0 };
    let leases = const { core::mem::offset_of!(Switch, leases) / 8 };
    // SAFETY: within the element, as no kind's number is above those that the switch has room for. Volatile, as user
    // space writes it meanwhile.
    unsafe { ptr::read_volatile(switch.cast::<u64>().add(leases + (kind & 7) as usize)) }
}

/// The number of a new event.
#[inline(always)]
pub(crate) fn next_event() -> u64 {
    let Some(switch) = EVENTS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live, aligned u64 that is only ever changed by this add.
    unsafe { fetch_add(switch.cast(), 1) + 1 }
}

#[inline(always)]
pub(crate) fn put_event(event: &Event) {
    if let Some(element) = EVENTS.get_ptr_mut(Event::element(event.sequence)) {
        // SAFETY: a live element. Another CPU may write it at the same time: then the seal does not fit.
        unsafe { *element = *event };
    }
}

/// Memory of this CPU for an event about a packet.
#[inline(always)]
pub(crate) fn event() -> Option<&'static mut Event> {
    // SAFETY: as in `count_verdict`: nobody else has it while this program runs.
    Some(unsafe { &mut *EVENT.get_ptr_mut(0)? })
}

/// Whether anything of ours may concern a packet with this address; see [`hot_bit`].
#[inline(always)]
pub(crate) fn is_hot(direction: Direction, address: &Address) -> bool {
    let (word, mask) = hot_bit(direction, address);
    HOT.get(word).is_some_and(|bits| bits & mask != 0)
}

#[inline(always)]
pub(crate) fn frontend_index(key: &ServiceKey) -> Option<u32> {
    // SAFETY: the value of an entry never changes while it lives, so no write races with this read.
    unsafe { SERVICES.get(key) }.copied()
}

/// Whether a frontend of ours, on whatever port, has this address.
#[inline(always)]
pub(crate) fn is_vip(address: &Address) -> bool {
    VIPS.get_ptr(address).is_some()
}

/// Whether every port of the address is ours.
#[inline(always)]
pub(crate) fn is_whole(address: &Address) -> bool {
    let Some(flags) = VIPS.get_ptr(address) else { return false };
    // SAFETY: the pointer is to a live, aligned value. Volatile, as user space may write it meanwhile.
    unsafe { ptr::read_volatile(flags) & VIP_WHOLE != 0 }
}

/// The element of `backends` at which the frontend's extent begins; 0 if the frontend is vacant.
#[inline(always)]
pub(crate) fn extent_of(frontend: u32) -> Option<u32> {
    let word = FRONTENDS.get_ptr(frontend)?;
    // SAFETY: the pointer is to a live, aligned element. Volatile, because user space stores to it: the word must be
    // read once and whole.
    Some(unsafe { ptr::read_volatile(word) } as u32)
}

/// An element of an extent. Nobody changes an element that a frontend points to, but for a probe's slot, until a grace period has
/// passed since it did.
#[inline(always)]
pub(crate) fn element(index: u32) -> Option<&'static Element> {
    BACKENDS.get(index)
}

/// Takes the slot of a probe, which one flow alone may have: its backend's id, or 0 if another flow has taken it.
#[inline(always)]
pub(crate) fn take_probe(index: u32) -> u32 {
    let Some(element) = BACKENDS.get_ptr_mut(index) else { return 0 };
    let word = Element::probe_word(element);
    // SAFETY: a live, aligned u32 of the map. Looked at first, as a slot that is taken stays in its place for a while, and
    // an exchange takes the cache line away from all others.
    unsafe {
        if ptr::read_volatile(word) == 0 {
            return 0;
        }
        atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(word, 0)
    }
}

#[inline(always)]
pub(crate) fn backend_state(backend: u32) -> BackendState {
    match BACKEND_STATE.get_ptr(backend) {
        // SAFETY: as in `extent_of`.
        Some(word) => BackendState::from_word(unsafe { ptr::read_volatile(word) }),
        None => BackendState::default(),
    }
}

/// The tick in which a daemon last looked after the maps; 0: none has.
#[inline(always)]
pub(crate) fn heartbeat() -> u32 {
    match HEARTBEAT.get_ptr(0) {
        // SAFETY: as in `extent_of`.
        Some(word) => unsafe { ptr::read_volatile(word) as u32 },
        None => 0,
    }
}

/// Takes the next turn of a service's wheel: every value once, over all CPUs.
#[inline(always)]
pub(crate) fn take_turn(service: u32) -> Option<u64> {
    let cursor = CURSORS.get_ptr_mut(service)?;
    // SAFETY: the pointer is to a live, aligned u64 of the map, which is only ever changed by this add.
    Some(unsafe { fetch_add(cursor, 1) })
}

/// Where the datagrams of an unconnected socket to this VIP go.
#[inline(always)]
pub(crate) fn socket_backend(key: &SocketKey) -> Option<*mut SocketBackend> {
    SOCKET_BACKENDS.get_ptr_mut(key)
}

/// A full map gives up its oldest entry, so that an insert fails only if every element is being written just now:
/// then the socket's next datagram selects anew.
#[inline(always)]
pub(crate) fn insert_socket_backend(key: &SocketKey, backend: &SocketBackend) {
    let _inserted = SOCKET_BACKENDS.insert(key, backend, 0);
}

/// What an unconnected socket called to be answered by this peer.
#[inline(always)]
pub(crate) fn socket_origin(key: &SocketKey) -> Option<*mut SocketOrigin> {
    SOCKET_ORIGINS.get_ptr_mut(key)
}

/// Fails as [`insert_socket_backend`] does: then the program sees an answer from the backend's own address.
#[inline(always)]
pub(crate) fn insert_socket_origin(key: &SocketKey, origin: &SocketOrigin) {
    let _inserted = SOCKET_ORIGINS.insert(key, origin, 0);
}

#[inline(always)]
pub(crate) fn remove_socket_origin(key: &SocketKey) {
    // An error means that it was not there: looked up first, as most are not, and a lookup takes no lock.
    if SOCKET_ORIGINS.get_ptr(key).is_some() {
        let _removed = SOCKET_ORIGINS.remove(key);
    }
}

/// What a socket was connected to; null if to nothing of ours.
#[inline(always)]
pub(crate) fn socket_peer(ctx: &SockAddrContext) -> *mut SocketOrigin {
    // SAFETY: the context's socket is the kernel's; the storage lives as long as the socket.
    unsafe { SOCKET_PEERS.get_ptr_mut(ctx) }
}

/// The same, made if need be; null if the socket has no room left (`net.core.optmem_max`).
#[inline(always)]
pub(crate) fn new_socket_peer(ctx: &SockAddrContext, origin: &mut SocketOrigin) -> *mut SocketOrigin {
    // SAFETY: as in `socket_peer`.
    unsafe { SOCKET_PEERS.get_or_insert_ptr_mut(ctx, Some(origin)) }
}

/// Sequentially consistent, although relaxed would do: LLVM compiles a relaxed add with a used result to the opcode
/// that does not fetch.
#[inline(always)]
unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, value) }
}

/// Where a flow is kept: by [`Tier::Established`] nothing evicts it, by [`Tier::Transient`] newer ones may.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Established,
    Transient,
}

/// The flow under this key. Others may change it meanwhile, or free it and reuse its memory: see [`Flow`].
#[inline(always)]
pub(crate) fn flow(tier: Tier, key: &Tuple) -> Option<*mut Flow> {
    match tier {
        Tier::Established => FLOWS.get_ptr_mut(key),
        Tier::Transient => TRANSIENT.get_ptr_mut(key),
    }
}

/// The reply under this key, with the same caution.
#[inline(always)]
pub(crate) fn reply(tier: Tier, key: &Tuple) -> Option<*mut Reply> {
    match tier {
        Tier::Established => REPLIES.get_ptr_mut(key),
        Tier::Transient => TRANSIENT_REPLIES.get_ptr_mut(key),
    }
}

#[inline(always)]
pub(crate) fn insert_flow(tier: Tier, key: &Tuple, flow: &Flow, insert: Insert) -> Result<(), i32> {
    match tier {
        Tier::Established => FLOWS.insert(key, flow, insert.number()),
        Tier::Transient => TRANSIENT.insert(key, flow, insert.number()),
    }
}

#[inline(always)]
pub(crate) fn insert_reply(tier: Tier, key: &Tuple, reply: &Reply, insert: Insert) -> Result<(), i32> {
    match tier {
        Tier::Established => REPLIES.insert(key, reply, insert.number()),
        Tier::Transient => TRANSIENT_REPLIES.insert(key, reply, insert.number()),
    }
}

/// Whether it was there.
#[inline(always)]
pub(crate) fn remove_flow(tier: Tier, key: &Tuple) -> bool {
    match tier {
        Tier::Established => FLOWS.remove(key).is_ok(),
        Tier::Transient => TRANSIENT.remove(key).is_ok(),
    }
}

#[inline(always)]
pub(crate) fn remove_reply(tier: Tier, key: &Tuple) {
    // The only error is that it was gone already.
    let _gone = match tier {
        Tier::Established => REPLIES.remove(key),
        Tier::Transient => TRANSIENT_REPLIES.remove(key),
    };
}

/// Memory of this CPU for what it has of the roster.
#[inline(always)]
pub(crate) fn turn() -> Option<&'static mut Turn> {
    // SAFETY: as in `count_verdict`: nobody else has it while this program runs.
    Some(unsafe { &mut *TURN.get_ptr_mut(0)? })
}

/// Takes out the entry whose turn it is; `false` if there is none.
#[inline(always)]
pub(crate) fn take_from_roster(entry: &mut RosterEntry) -> bool {
    // SAFETY: the map is a queue of what the pointer has room for. aya's own `pop` would put it on the stack.
    unsafe { bpf_map_pop_elem((&raw const ROSTER).cast_mut().cast(), ptr::from_mut(entry).cast()) == 0 }
}

/// Puts an entry at the end of the roster; `false` if that is full.
#[inline(always)]
pub(crate) fn put_in_roster(entry: &RosterEntry) -> bool {
    ROSTER.push(entry, 0).is_ok()
}

/// Where a client's last flow went. The kernel may reuse the memory at once: see [`Affinity::seal`].
#[inline(always)]
pub(crate) fn affinity(key: &AffinityKey) -> Option<*mut Affinity> {
    AFFINITY.get_ptr_mut(key)
}

#[inline(always)]
pub(crate) fn insert_affinity(key: &AffinityKey, entry: &Affinity) {
    // It fails if all elements are being written at this moment: then the client's next flow selects anew.
    let _inserted = AFFINITY.insert(key, entry, 0);
}

/// Room for both halves of a flow.
#[inline(always)]
pub(crate) fn pair() -> Option<&'static mut Pair> {
    // SAFETY: as in `count_verdict`: nobody else has it while this program runs.
    Some(unsafe { &mut *PAIR.get_ptr_mut(0)? })
}

/// Memory of this CPU until the program ends, for what does not fit on the stack. To be asked for once.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: as in `count_verdict`: nobody else has it while this program runs.
    Some(unsafe { &mut *SCRATCH.get_ptr_mut(0)? })
}

/// Memory of this CPU until the last program that goes on with a packet ends, for what only odd packets need.
#[inline(always)]
pub(crate) fn aside() -> Option<&'static mut Aside> {
    // SAFETY: as in `count_verdict`: nobody else has it while this program runs.
    Some(unsafe { &mut *ASIDE.get_ptr_mut(0)? })
}

/// What a datagram's first fragment was translated to. The kernel may reuse the memory at once: see
/// [`Fragment::seal`].
#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<*mut Fragment> {
    FRAGMENTS.get_ptr_mut(key)
}

#[inline(always)]
pub(crate) fn insert_fragment(key: &FragmentKey, fragment: &Fragment) {
    // It fails if all elements are being written at this moment: then the later fragments pass, and are counted.
    let _inserted = FRAGMENTS.insert(key, fragment, 0);
}

#[inline(always)]
pub(crate) fn remove_fragment(key: &FragmentKey) {
    // The only error is that there was none.
    let _gone = FRAGMENTS.remove(key);
}

/// Takes one established flow out of an interface's share; `false` if it has used it up.
#[inline(always)]
pub(crate) fn take_share(interface: u32) -> bool {
    let Some(count) = INTERFACE_FLOWS.get_ptr_mut(interface & (SHARES - 1)) else { return false };
    // SAFETY: a live, aligned u64 that is only ever changed by atomic adds, here and in user space.
    let before = unsafe { fetch_add(count, 1) };
    // Signed: a count that user space has set too low goes below zero for a while, and is not to read as huge.
    if (before as i64) < i64::from(FLOWS_PER_INTERFACE.load()) {
        return true;
    }
    give_share(interface);
    false
}

/// Gives it back.
#[inline(always)]
pub(crate) fn give_share(interface: u32) {
    if let Some(count) = INTERFACE_FLOWS.get_ptr_mut(interface & (SHARES - 1)) {
        // SAFETY: as in `take_share`. Adding all ones subtracts one.
        unsafe { fetch_add(count, u64::MAX) };
    }
}

/// Takes one of the answers that an interface gets in this tick; `false` if it has had them all.
#[inline(always)]
pub(crate) fn take_reject(interface: u32, now: u32) -> bool {
    let Some(word) = REJECTS.get_ptr_mut(interface & (SHARES - 1)) else { return false };
    // SAFETY: a live, aligned u64. Two CPUs that begin a tick at once lose a few counts, which does no harm.
    unsafe {
        if (ptr::read_volatile(word) >> 32) as u32 != now {
            ptr::write_volatile(word, u64::from(now) << 32);
        }
        (fetch_add(word, 1) as u32) < REJECTS_PER_TICK
    }
}

/// What user space knows of an interface.
#[inline(always)]
pub(crate) fn place(interface: u32) -> Place {
    // SAFETY: two independent words; each is right, whichever of two values it is of.
    unsafe { PLACES.get(&interface) }.copied().unwrap_or(Place::UNKNOWN)
}

/// Room for a question to the host.
#[inline(always)]
pub(crate) fn asking() -> Option<&'static mut Asking> {
    // SAFETY: as in `count_verdict`: nobody else has it while this program runs.
    Some(unsafe { &mut *ASKING.get_ptr_mut(0)? })
}

/// Where the host sends packets, as it said last.
#[inline(always)]
pub(crate) fn hop(key: &HopKey) -> Option<*mut Hop> {
    HOPS.get_ptr_mut(key)
}

/// Whether there was an element for it.
#[inline(always)]
pub(crate) fn insert_hop(key: &HopKey, hop: &Hop) -> bool {
    HOPS.insert(key, hop, 0).is_ok()
}

/// Goes on with another program, and returns only if it is not there. To be called by a program itself: deeper down
/// the verifier would count what is on the stack.
#[inline(always)]
pub(crate) fn go_on(ctx: &TcContext, stage: Stage) {
    // SAFETY: nothing waits to be dropped.
    unsafe { PROGRAMS.tail_call(ctx, stage as u32) };
}

/// Whether an insert may overwrite.
#[derive(Clone, Copy)]
pub(crate) enum Insert {
    New,
    Overwrite,
}

impl Insert {
    #[inline(always)]
    const fn number(self) -> u64 {
        match self {
            Self::New => BPF_NOEXIST as u64,
            Self::Overwrite => 0,
        }
    }
}

#[inline(always)]
pub(crate) fn count_verdict(verdict: Verdict) {
    if let Some(counter) = VERDICT_COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: this CPU's own counter, and a program is not interrupted by another on its hook.
        unsafe { *counter += 1 };
    }
}

/// Counts a connection or first datagram of the socket path. These programs run for processes, which packets
/// interrupt: unlike above, the add must be one instruction.
#[inline(always)]
pub(crate) fn count_socket(verdict: Verdict, service: u32, backend: u32) {
    if let Some(counter) = VERDICT_COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: a live, aligned u64.
        unsafe { fetch_add(counter, 1) };
    }
    if !matches!(verdict, Verdict::Connected) {
        return;
    }
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(service) {
        // SAFETY: the same.
        unsafe { fetch_add(&raw mut (*counters).flows, 1) };
    }
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend) {
        // SAFETY: a live, aligned u32.
        unsafe {
            atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(&raw mut (*counters).connects, 1);
        }
    }
}

/// Counts a confirmed flow that found no room among the established ones.
#[inline(always)]
pub(crate) fn count_unpromoted() {
    count_verdict(Verdict::NotPromoted);
}

#[inline(always)]
pub(crate) fn count_service(service: u32, count: impl FnOnce(&mut ServiceCounters)) {
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(service) {
        // SAFETY: as in `count_verdict`.
        count(unsafe { &mut *counters });
    }
}

#[inline(always)]
pub(crate) fn count_backend(backend: u32, count: impl FnOnce(&mut BackendCounters)) {
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend) {
        // SAFETY: as in `count_verdict`.
        count(unsafe { &mut *counters });
    }
}
