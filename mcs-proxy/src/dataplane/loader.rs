//! Loads the programs onto the pinned maps, new or adopted.

use super::{
    audit::audit,
    flows::{TickRate, Timeouts},
    growth::Growth,
    hairpin::Hairpin,
    hops::{self, Hops},
    pins::{PinDir, PinsError},
    sockets::SocketHook,
    sys::{self, Access, MapShape, SysError},
};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, ProgramArray},
    programs::{CgroupSockAddr, ProgramError, SchedClassifier},
    util::KernelVersion,
};
use aya_log::EbpfLogger;
use mcs_proxy_ebpf::abi::{Direction, MapName, MapSizes, SocketScope, Stage};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// The programs in the kernel. They end with this value, unless links or pins hold them.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
}

/// What [`load`] yields.
pub struct Loaded {
    pub programs: Programs,
    /// What the programs log, if that was asked for: to be flushed whenever it is readable.
    pub logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Whether maps were there already, from an earlier daemon.
    pub adopted: bool,
    /// To be finished once these programs are everywhere.
    pub growth: Option<Growth>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // aya's arrays and logger have no Debug.
        formatter
            .debug_struct("Loaded")
            .field("programs", &self.programs)
            .field("adopted", &self.adopted)
            .finish_non_exhaustive()
    }
}

/// This node, or this process, can't do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "{} missing: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (in a pod: \
         securityContext.capabilities.add: [BPF, NET_ADMIN, PERFMON])", .missing.join(", ")
    )]
    Capabilities { missing: Vec<&'static str> },
    #[error("Linux {found} is too old: {} or later is needed", MINIMUM_KERNEL.0)]
    Kernel { found: String },
    #[error("whether the rights suffice can't be found out: {0}")]
    Unknown(#[from] SysError),
    #[error(transparent)]
    Pins(#[from] PinsError),
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the embedded eBPF object can't be parsed")]
    Object(#[source] aya_obj::ParseError),
    #[error("the embedded eBPF object has no {what} `{name}`: it does not belong to this binary")]
    Incomplete { what: &'static str, name: &'static str },
    #[error("{path} does not fit: {difference}; {remedy}")]
    ForeignPin { path: PathBuf, difference: String, remedy: String },
    #[error(
        "{path}: maps were being made larger when the last daemon ended: start with the sizes that it was started with, \
         and once more with other ones when it has `synced`"
    )]
    Unfinished { path: PathBuf },
    #[error("{path}: {source}")]
    Pin { path: PathBuf, source: io::Error },
    #[error("making the maps")]
    Maps(#[source] EbpfError),
    #[error("loading program `{name}`")]
    Program { name: &'static str, source: ProgramError },
    #[error("entering program `{name}`, which others go on with")]
    Stage { name: &'static str, source: MapError },
    #[error("the programs' log")]
    Log(#[source] aya_log::Error),
}

const FROM_POD: &str = "from_pod";
const TO_POD: &str = "to_pod";
const CLOCK: &str = "clock";

/// Linux 5.12 is the first whose atomic add returns what was there before (`BPF_FETCH`): the cursor needs it.
pub const MINIMUM_KERNEL: (&str, KernelVersion) = ("5.12", KernelVersion::new(5, 12, 0));

/// The first with `bpf_set_retval`.
pub const SET_RETVAL_KERNEL: KernelVersion = KernelVersion::new(5, 18, 0);

/// Says what stands in the way of [`load`], without changing anything.
pub fn preflight(dir: &PinDir) -> Result<(), Refusal> {
    let found = KernelVersion::current().map_err(|error| Refusal::Kernel { found: error.to_string() })?;
    if found < MINIMUM_KERNEL.1 {
        return Err(Refusal::Kernel { found: found.to_string() });
    }
    let missing = missing_capabilities()?;
    if !missing.is_empty() {
        return Err(Refusal::Capabilities { missing });
    }
    Ok(dir.check()?)
}

/// Of those that the daemon needs.
pub fn missing_capabilities() -> Result<Vec<&'static str>, SysError> {
    // Numbers of capabilities(7).
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
    let effective = sys::effective_capabilities()?;
    Ok(NEEDED.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect())
}

/// What is fixed when the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub sizes: MapSizes,
    /// How many established flows an interface may have.
    pub flows_per_interface: u32,
    /// How long established flows may be silent before the programs forget them.
    pub timeouts: Timeouts,
    /// For how long no daemon may look after the maps before new flows pass; zero: for ever.
    pub orphan_timeout: Duration,
    /// Which sockets the socket path serves, if any.
    pub socket_path: Option<SocketScope>,
    pub hairpin: Hairpin,
    /// Whether packets between pods of this node go past the host's IP stack.
    pub redirect: bool,
    /// Whether the programs log.
    pub bpf_log: bool,
}

/// Loads the programs of `object`. Maps that an earlier daemon has pinned are adopted if they are exactly what the
/// object and the sizes ask for, and refused by name if not; the others are made and pinned.
pub fn load(object: &[u8], dir: &PinDir, options: &Options) -> Result<Loaded, LoadError> {
    let Options {
        sizes,
        flows_per_interface,
        hairpin,
        redirect,
        socket_path,
        timeouts,
        orphan_timeout,
        bpf_log,
    } = options;
    preflight(dir)?;
    audit(dir)?;
    let Pinned { adopted, grows, wanted } = check_pins(object, dir, sizes)?;
    let mut growth = Growth::begin(dir, grows, |map| wanted.get(&map).copied())?;
    dir.create().map_err(Refusal::from)?;

    // The level is a constant to the verifier: with 0 it takes every log statement out.
    let level: u8 = if *bpf_log { u8::MAX } else { 0 };
    let [hairpin_v4, hairpin_v6] = hairpin.addresses();
    let mut loader = EbpfLoader::new();
    let socket_scope = socket_path.map_or(0, |scope| scope as u32);
    // 0 is no namespace's. Where the kernel does not tell, attaching the programs for sockets says so.
    let host_netns = sys::netns_cookie().unwrap_or(0);
    let has_set_retval = u32::from(KernelVersion::current().is_ok_and(|kernel| kernel >= SET_RETVAL_KERNEL));
    let rate = TickRate::of_this_kernel().map_err(Refusal::from)?;
    let redirect = u32::from(*redirect);
    // The programs tell the future from the past by the sign.
    let orphan_timeout =
        if orphan_timeout.is_zero() { 0 } else { rate.ticks(*orphan_timeout).min(u32::MAX / 2) };
    let (ticks_per_second, silences) = (rate.per_second(), timeouts.silences(rate));
    loader
        .override_global(aya_log::LEVEL, &level, false)
        .override_global("FLOWS_PER_INTERFACE", flows_per_interface, true)
        .override_global("TICKS_PER_SECOND", &ticks_per_second, true)
        .override_global("SOCKET_SCOPE", &socket_scope, true)
        .override_global("HOST_NETNS", &host_netns, true)
        .override_global("HAS_SET_RETVAL", &has_set_retval, true)
        .override_global("HAIRPIN_V4", &hairpin_v4, true)
        .override_global("HAIRPIN_V6", &hairpin_v6, true)
        .override_global("SILENCES", &silences, true)
        .override_global("REDIRECT", &redirect, true)
        .override_global("ORPHAN_TIMEOUT", &orphan_timeout, true);
    for map in MapName::ALL {
        loader.map_max_entries(map.as_str(), sizes.of(map)).map_pin_path(map.as_str(), dir.map(map));
    }
    let mut ebpf = loader.load(object).map_err(LoadError::Maps)?;
    if let Some(growth) = &mut growth {
        growth.copy(dir)?;
    }
    // The logger takes a map of its own, which the programs need no name for any more.
    let logger = bpf_log.then(|| EbpfLogger::init(&mut ebpf)).transpose().map_err(LoadError::Log)?;
    let mut programs = Programs { ebpf };
    for name in [FROM_POD, TO_POD, CLOCK].into_iter().chain(Stage::ALL.map(Stage::as_str)) {
        let program = programs.get(name)?;
        patiently(|| program.load()).map_err(|source| LoadError::Program { name, source })?;
    }
    // Before anything is attached; and an earlier daemon's programs go on with the new ones from here on.
    enter_stages(&mut programs.ebpf)?;
    programs.pin_clock(&dir.clock())?;
    Ok(Loaded { programs, logger, adopted: adopted || growth.is_some(), growth })
}

/// The verifier gives up with EAGAIN when a signal is pending for the thread (kernel commit c3494801cd17), and a busy
/// process may be sent one at every try: each child that ends sends SIGCHLD to any one thread that takes it. So none
/// is taken meanwhile. What can't be held back, a debugger or the freezer, may still interrupt: libbpf tries five
/// times, and so do we.
pub fn patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let _held = sys::HeldSignals::on_this_thread();
    let mut tries = 1;
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock && tries < 5 =>
            {
                tries += 1;
            }
            loaded => return loaded,
        }
    }
}

/// Enters the loaded programs where others go on with them. What was entered there before, if the map was pinned, is
/// replaced one by one. The kernel empties the map when neither a pin nor what is returned holds it any more.
pub fn enter_stages(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, LoadError> {
    let name = MapName::Stages.as_str();
    let map = ebpf.take_map(name).ok_or(LoadError::Incomplete { what: "map", name })?;
    let mut stages = ProgramArray::try_from(map).map_err(|source| LoadError::Stage { name, source })?;
    for stage in Stage::ALL {
        let name = stage.as_str();
        let program = ebpf.program(name).ok_or(LoadError::Incomplete { what: "program", name })?;
        let program: &SchedClassifier =
            program.try_into().map_err(|source| LoadError::Program { name, source })?;
        let fd = program.fd().map_err(|source| LoadError::Program { name, source })?;
        stages.set(stage as u32, fd, 0).map_err(|source| LoadError::Stage { name, source })?;
    }
    Ok(stages)
}

impl Programs {
    /// Where these programs remember what the host said.
    pub fn hops(&self) -> Result<Hops, LoadError> {
        let Some(Map::LruHashMap(map)) = self.ebpf.map(hops::MAP) else {
            return Err(LoadError::Incomplete { what: "map", name: hops::MAP });
        };
        let fd = map.fd().as_fd().try_clone_to_owned();
        fd.map(Hops::new).map_err(|source| LoadError::Pin { path: hops::MAP.into(), source })
    }

    pub fn fd(&self, direction: Direction) -> Result<BorrowedFd<'_>, LoadError> {
        let name = program_name(direction);
        let program = self.ebpf.program(name).ok_or(LoadError::Incomplete { what: "program", name })?;
        let fd = program.fd().map_err(|source| LoadError::Program { name, source })?;
        Ok(fd.as_fd())
    }

    pub fn classifier(&mut self, direction: Direction) -> Result<&mut SchedClassifier, LoadError> {
        self.get(program_name(direction))
    }

    /// Loads the program of a hook for sockets, if it is not loaded yet. Not with the others: a kernel that refuses it
    /// still serves packets.
    pub fn socket(&mut self, hook: SocketHook) -> Result<BorrowedFd<'_>, LoadError> {
        let name = hook.as_str();
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Incomplete { what: "program", name })?;
        let error = |source| LoadError::Program { name, source };
        let program: &mut CgroupSockAddr = program.try_into().map_err(error)?;
        match patiently(|| program.load()) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(source) => return Err(error(source)),
        }
        Ok(program.fd().map_err(error)?.as_fd())
    }

    fn get(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Incomplete { what: "program", name })?;
        program.try_into().map_err(|source| LoadError::Program { name, source })
    }

    /// Pins the clock beside the old one, then moves it over: there is one at any time.
    fn pin_clock(&mut self, path: &Path) -> Result<(), LoadError> {
        let beside = path.with_file_name("clock-new");
        let pin_error = |source| LoadError::Pin { path: path.to_owned(), source };
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pin_error(error)),
            Ok(()) | Err(_) => {}
        }
        let clock = self.get(CLOCK)?;
        let fd = clock.fd().map_err(|source| LoadError::Program { name: CLOCK, source })?;
        sys::object_pin(fd.as_fd(), &beside).map_err(|error| pin_error(error.into()))?;
        fs::rename(&beside, path).map_err(pin_error)
    }
}

const fn program_name(direction: Direction) -> &'static str {
    match direction {
        Direction::FromPod => FROM_POD,
        Direction::ToPod => TO_POD,
    }
}

/// Whether anything is pinned; a daemon with these sizes can go on with it then.
///
/// # Errors
/// It cannot; the error says what does not fit, and the way out.
pub fn adopts(object: &[u8], dir: &PinDir, sizes: &MapSizes) -> Result<bool, LoadError> {
    Ok(check_pins(object, dir, sizes)?.adopted)
}

/// What is pinned.
struct Pinned {
    adopted: bool,
    /// Maps are smaller than they are to be, and fit in all else.
    grows: bool,
    wanted: BTreeMap<MapName, MapShape>,
}

/// aya adopts any pin of the right name; the contract is checked here.
fn check_pins(object: &[u8], dir: &PinDir, sizes: &MapSizes) -> Result<Pinned, LoadError> {
    let object = aya_obj::Object::parse(object).map_err(LoadError::Object)?;
    let (mut adopted, mut grows, mut all) = (false, false, BTreeMap::new());
    for map in MapName::ALL {
        let name = map.as_str();
        let wanted = object.maps.get(name).ok_or(LoadError::Incomplete { what: "map", name })?;
        let wanted = MapShape {
            kind: wanted.map_type(),
            id: 0,
            key_size: wanted.key_size(),
            value_size: wanted.value_size(),
            max_entries: sizes.of(map),
            flags: wanted.map_flags(),
        };
        all.insert(map, wanted);
        let path = dir.map(map);
        let found = match sys::object_get(&path, Access::ReadOnly) {
            Ok(fd) => sys::map_shape(fd.as_fd()),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(error),
        };
        let found = found.map_err(|error| LoadError::Pin { path: path.clone(), source: error.into() })?;
        grows |= MapShape { max_entries: found.max_entries, id: found.id, ..wanted } == found
            && found.max_entries < wanted.max_entries;
        if let Some((difference, remedy)) = compare(map, &wanted, &found, dir.path()) {
            return Err(LoadError::ForeignPin { path, difference, remedy });
        }
        adopted = true;
    }
    Ok(Pinned { adopted, grows, wanted: all })
}

/// How much memory, in bytes, the maps take once they are full: as the kernel lays out hashes (`struct htab_elem` and
/// a bucket for each entry) and arrays (kernel/bpf/hashtab.c, arraymap.c).
pub fn map_memory(object: &[u8], sizes: &MapSizes) -> Result<u64, LoadError> {
    const ELEMENT: u64 = 48;
    const BUCKET: u64 = 16;
    let object = aya_obj::Object::parse(object).map_err(LoadError::Object)?;
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u64);
    let of = |map: MapName| {
        let name = map.as_str();
        let found = object.maps.get(name).ok_or(LoadError::Incomplete { what: "map", name })?;
        let [key, value] =
            [found.key_size(), found.value_size()].map(|size| u64::from(size).next_multiple_of(8));
        let entries = u64::from(sizes.of(map));
        Ok(match found.map_type() {
            // BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH
            1 | 9 => entries * (ELEMENT + key + value) + entries.next_power_of_two() * BUCKET,
            // BPF_MAP_TYPE_PERCPU_ARRAY
            6 => entries * value * cpus,
            // BPF_MAP_TYPE_RINGBUF
            27 => entries,
            _ => entries * value,
        })
    };
    MapName::ALL.into_iter().map(of).sum()
}

/// What is wrong with a pinned map, and the way out.
fn compare(map: MapName, wanted: &MapShape, found: &MapShape, dir: &Path) -> Option<(String, String)> {
    let MapShape { kind, id: _, key_size, value_size, max_entries, flags } = *wanted;
    let remove = format!(
        "stop the daemon, remove {} (`mcs-proxy cleanup`; connections that go through mcs-proxy end) and start again",
        dir.display()
    );
    let parts = [
        ("type", kind, found.kind),
        ("key size", key_size, found.key_size),
        ("value size", value_size, found.value_size),
        ("flags", flags, found.flags),
    ];
    if let Some((part, wanted, found)) = parts.into_iter().find(|(_, wanted, found)| wanted != found) {
        return Some((format!("its {part} is {found} and should be {wanted}"), remove));
    }
    if max_entries < found.max_entries {
        let difference = format!("it has {} entries and should have {max_entries}", found.max_entries);
        let remedy = match size_flag(map) {
            Some(flag) => format!("start with {flag} {}, or {remove}", found.max_entries),
            None => remove,
        };
        return Some((difference, remedy));
    }
    None
}

/// The flag of the daemon that sets a map's size, if there is one.
#[must_use]
pub const fn size_flag(map: MapName) -> Option<&'static str> {
    match map {
        MapName::Services
        | MapName::Vips
        | MapName::Frontends
        | MapName::Cursors
        | MapName::ServiceCounters => Some("--max-frontends"),
        MapName::Backends => Some("--max-slots"),
        MapName::BackendState | MapName::BackendCounters => Some("--max-backends"),
        MapName::Flows | MapName::Replies | MapName::Roster => Some("--max-flows"),
        MapName::Transient | MapName::TransientReplies => Some("--max-transient-flows"),
        MapName::SocketBackends | MapName::SocketOrigins => Some("--max-sockets"),
        MapName::Hot
        | MapName::SocketPeers
        | MapName::Heartbeat
        | MapName::InterfaceFlows
        | MapName::Rejects
        | MapName::Interfaces
        | MapName::Stages
        | MapName::Affinity
        | MapName::Fragments
        | MapName::Verdicts
        | MapName::Events => None,
    }
}
