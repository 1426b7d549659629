//! The maps. They are private to this file: the rest of the programs goes through the getters, which say what a
//! lookup means. Sizes are those of the contract's defaults; the loader overrides them.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use core::ptr;
use mcs_proxy_ebpf::abi::{
    Address, Affinity, AffinityKey, BackendCounters, BackendState, Direction, Element, Flow, Fragment,
    FragmentKey, FrontendWord, HOT_WORDS, MapSizes, Reply, ServiceCounters, ServiceKey, Tuple, VERDICTS,
    Verdict, hot_bit,
};

const SIZES: MapSizes = MapSizes::DEFAULT;

#[map(name = "hot")]
static HOT: Array<u64> = Array::with_max_entries(HOT_WORDS, BPF_F_MMAPABLE);
#[map(name = "services")]
static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(SIZES.frontends, 0);
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
#[map(name = "affinity")]
static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(SIZES.affinity, 0);
#[map(name = "fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(SIZES.fragments, 0);
#[map(name = "service_counters")]
static SERVICE_COUNTERS: PerCpuArray<ServiceCounters> = PerCpuArray::with_max_entries(SIZES.frontends, 0);
#[map(name = "backend_counters")]
static BACKEND_COUNTERS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(SIZES.backend_ids, 0);
#[map(name = "verdicts")]
static VERDICT_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICTS, 0);
#[map(name = "events")]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

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

/// The element of `backends` at which the frontend's extent begins; 0 if the frontend is vacant.
#[inline(always)]
pub(crate) fn extent_of(frontend: u32) -> Option<u32> {
    let word = FRONTENDS.get_ptr(frontend)?;
    // SAFETY: the pointer is to a live, aligned element. Volatile, because user space stores to it: the word must be
    // read once and whole.
    Some(unsafe { ptr::read_volatile(word) } as u32)
}

/// An element of an extent. User space changes no element that a frontend points to, until a grace period has
/// passed since it did.
#[inline(always)]
pub(crate) fn element(index: u32) -> Option<&'static Element> {
    BACKENDS.get(index)
}

#[inline(always)]
pub(crate) fn backend_state(backend: u32) -> BackendState {
    match BACKEND_STATE.get_ptr(backend) {
        // SAFETY: as in `extent_of`.
        Some(word) => BackendState::from_word(unsafe { ptr::read_volatile(word) }),
        None => BackendState::default(),
    }
}

/// Takes the next turn of a service's wheel: every value once, over all CPUs.
#[inline(always)]
pub(crate) fn take_turn(service: u32) -> Option<u64> {
    let cursor = CURSORS.get_ptr_mut(service)?;
    // Sequentially consistent, although relaxed would do: LLVM compiles a relaxed add with a used result to the
    // opcode that does not fetch.
    // SAFETY: the pointer is to a live, aligned u64 of the map, which is only ever changed by this add.
    Some(unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(cursor, 1)
    })
}

/// The flow under this key. Others may change it meanwhile, or free it and reuse its memory: see [`Flow`].
#[inline(always)]
pub(crate) fn flow(key: &Tuple) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(key)
}

/// The reply under this key, with the same caution.
#[inline(always)]
pub(crate) fn reply(key: &Tuple) -> Option<*mut Reply> {
    REPLIES.get_ptr_mut(key)
}

#[inline(always)]
pub(crate) fn insert_flow(key: &Tuple, flow: &Flow, flags: Insert) -> Result<(), i32> {
    FLOWS.insert(key, flow, flags.number())
}

#[inline(always)]
pub(crate) fn insert_reply(key: &Tuple, reply: &Reply, flags: Insert) -> Result<(), i32> {
    REPLIES.insert(key, reply, flags.number())
}

#[inline(always)]
pub(crate) fn remove_flow(key: &Tuple) {
    // The only error is that it was gone already.
    let _gone = FLOWS.remove(key);
}

#[inline(always)]
pub(crate) fn remove_reply(key: &Tuple) {
    let _gone = REPLIES.remove(key);
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
