//! Where the maps, links and the clock program are pinned, and what the command line reads from there, whether the
//! daemon lives or not.

use super::{
    FlowRef,
    counters::BackendCounters as BackendReader,
    frontend_key,
    sockets::SocketHook,
    sys::{self, Access, MappedWords, SysError},
};
use crate::desired::FrontendKey;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use mcs_proxy_ebpf::abi::{
    ABI_VERSION, BackendCounters, BackendState, Direction, Flow, Header, MapName, Reply, ServiceCounters,
    ServiceKey, Slot, Tuple, Verdict,
};
use std::{
    collections::HashSet,
    fmt, fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

/// The directory of this contract's pins: `<pin-dir>/v<ABI_VERSION>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDir {
    pin_dir: PathBuf,
    versioned: PathBuf,
}

/// The pins can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    #[error(
        "{path} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf` and choose a directory \
         in it with --pin-dir"
    )]
    NotBpffs { path: PathBuf },
    #[error(
        "{path} is on a BPF file system that is mounted read-only: nothing was changed, and what runs goes on; \
         `mount -o remount,rw /sys/fs/bpf`, or in a pod mount it without readOnly"
    )]
    ReadOnly { path: PathBuf },
    #[error("{path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "nothing is pinned in {path}: on this node the daemon (`mcs-proxy run`) has not run since the last boot, or \
         with another --pin-dir"
    )]
    NothingPinned { path: PathBuf },
    #[error("{path}: permission denied: run as root, as with sudo")]
    Denied { path: PathBuf },
    #[error("map `{map}`: {source}")]
    Read { map: &'static str, source: MapError },
    #[error("map `{map}`: {source}")]
    Sys { map: &'static str, source: SysError },
}

impl PinDir {
    #[must_use]
    pub fn new(pin_dir: impl Into<PathBuf>) -> Self {
        let pin_dir = pin_dir.into();
        let versioned = pin_dir.join(format!("v{ABI_VERSION}"));
        Self { pin_dir, versioned }
    }

    /// `--pin-dir`, whatever the contract's version.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.pin_dir
    }

    /// With the contract's version.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.versioned
    }

    #[must_use]
    pub fn map(&self, map: MapName) -> PathBuf {
        self.versioned.join(map.as_str())
    }

    #[must_use]
    pub fn clock(&self) -> PathBuf {
        self.versioned.join("clock")
    }

    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.versioned.join("links")
    }

    #[must_use]
    pub fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        self.links().join(format!("{ifindex}-{}", link_suffix(direction)))
    }

    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.versioned.join("sockets")
    }

    #[must_use]
    pub fn socket_link(&self, hook: SocketHook) -> PathBuf {
        self.sockets().join(hook.as_str())
    }

    /// Refuses a place where nothing can be pinned, without creating anything.
    pub fn check(&self) -> Result<(), PinsError> {
        let existing = self.pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let failed =
            |error: SysError| PinsError::Directory { path: existing.to_owned(), source: error.source };
        if !sys::is_bpffs(existing).map_err(failed)? {
            return Err(PinsError::NotBpffs { path: self.pin_dir.clone() });
        }
        if sys::is_read_only(existing).map_err(failed)? {
            return Err(PinsError::ReadOnly { path: self.pin_dir.clone() });
        }
        Ok(())
    }

    /// Makes the directories, for root alone.
    pub fn create(&self) -> Result<(), PinsError> {
        self.make([self.links(), self.sockets()])
    }

    /// The same of [`Self::root`] alone.
    pub fn create_root(&self) -> Result<(), PinsError> {
        self.make([self.pin_dir.clone()])
    }

    fn make(&self, directories: impl IntoIterator<Item = PathBuf>) -> Result<(), PinsError> {
        self.check()?;
        directories.into_iter().try_for_each(|path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| PinsError::Directory { path, source })
        })
    }

    /// Opens a pinned map.
    pub fn open(&self, map: MapName, access: Access) -> Result<OwnedFd, PinsError> {
        sys::object_get(&self.map(map), access).map_err(|error| match error.errno() {
            Some(libc::ENOENT) => PinsError::NothingPinned { path: self.versioned.clone() },
            Some(libc::EACCES | libc::EPERM) => PinsError::Denied { path: self.map(map) },
            // To be mapped into memory, an array is opened for writing.
            Some(libc::EROFS) => PinsError::ReadOnly { path: self.map(map) },
            Some(_) | None => PinsError::Sys { map: map.as_str(), source: error },
        })
    }

    /// Opens a pinned map by a type of aya's.
    pub fn open_as<T>(&self, map: MapName, access: Access) -> Result<T, PinsError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let read = |source| PinsError::Read { map: map.as_str(), source };
        let data = MapData::from_fd(self.open(map, access)?).map_err(read)?;
        Map::from_map_data(data).and_then(T::try_from).map_err(read)
    }

    /// Maps a pinned array into memory.
    pub fn map_words(&self, map: MapName, access: Access) -> Result<MappedWords, PinsError> {
        let array = self.open(map, Access::ReadWrite)?;
        MappedWords::map(array.as_fd(), access).map_err(|source| PinsError::Sys { map: map.as_str(), source })
    }
}

/// How a link's pin, and the program behind it, are called.
pub(super) const fn link_suffix(direction: Direction) -> &'static str {
    match direction {
        Direction::FromPod => "from-pod",
        Direction::ToPod => "to-pod",
    }
}

/// The pinned maps, opened for reading.
pub struct Pins {
    services: HashMap<MapData, ServiceKey, u32>,
    frontends: MappedWords,
    backends: MappedWords,
    backend_state: MappedWords,
    flows: OwnedFd,
    replies: OwnedFd,
    transient: OwnedFd,
    service_counters: PerCpuArray<MapData, ServiceCounters>,
    backend_counters: BackendReader,
    verdicts: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for Pins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // aya's arrays and logger have no Debug.
        formatter.debug_struct("Pins").field("services", &self.services).finish_non_exhaustive()
    }
}

/// A frontend as the programs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedFrontend {
    pub key: FrontendKey,
    /// Index in `frontends`, and service id.
    pub index: u32,
    pub header: Header,
    pub slots: Vec<Slot>,
}

/// All frontends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendDump {
    /// In the order of their keys.
    pub frontends: Vec<DumpedFrontend>,
    /// Keys that lead nowhere. Normally there are none, or one that the daemon is just removing.
    pub unreadable: Vec<ServiceKey>,
}

impl Pins {
    pub fn open(dir: &PinDir) -> Result<Self, PinsError> {
        let access = Access::ReadOnly;
        Ok(Self {
            services: dir.open_as(MapName::Services, access)?,
            frontends: dir.map_words(MapName::Frontends, access)?,
            backends: dir.map_words(MapName::Backends, access)?,
            backend_state: dir.map_words(MapName::BackendState, access)?,
            flows: dir.open(MapName::Flows, access)?,
            replies: dir.open(MapName::Replies, access)?,
            transient: dir.open(MapName::Transient, access)?,
            service_counters: dir.open_as(MapName::ServiceCounters, access)?,
            backend_counters: BackendReader::open(dir)?,
            verdicts: dir.open_as(MapName::Verdicts, access)?,
        })
    }

    pub fn frontends(&self) -> Result<FrontendDump, PinsError> {
        let mut dump = FrontendDump::default();
        for entry in self.services.iter() {
            let (service, index) = entry.map_err(|source| PinsError::Read { map: "services", source })?;
            match frontend_key(&service).zip(self.extent(index)) {
                Some((key, (header, slots))) => {
                    dump.frontends.push(DumpedFrontend { key, index, header, slots });
                }
                None => dump.unreadable.push(service),
            }
        }
        dump.frontends.sort_by_key(|frontend| frontend.key);
        dump.unreadable.sort_unstable();
        Ok(dump)
    }

    /// Reads an extent while the daemon may be replacing it: what was read counts if the frontend still points to
    /// it. (The old one is overwritten only after a grace period.)
    fn extent(&self, frontend: u32) -> Option<(Header, Vec<Slot>)> {
        const TRIES: usize = 8;
        (0..TRIES).find_map(|_| {
            let word = self.frontends.read(frontend as usize)?;
            let first = usize::try_from(word).ok().filter(|&first| first > 0)?;
            let header = self.backends.read_element(first)?.as_header()?;
            let end = first.checked_add(header.count as usize)?;
            let slots: Option<Vec<Slot>> = (first + 1..=end)
                .take_while(|&index| index < self.backends.len())
                .map(|index| self.backends.read_element(index)?.as_slot())
                .collect();
            let is_whole =
                header.frontend == frontend && self.frontends.read(frontend as usize) == Some(word);
            slots
                .filter(|slots| is_whole && slots.len() == header.count as usize)
                .map(|slots| (header, slots))
        })
    }

    #[must_use]
    pub fn backend_state(&self, backend: u32) -> BackendState {
        self.backend_state.read(backend as usize).map(BackendState::from_word).unwrap_or_default()
    }

    /// Every flow once: those that are established, and those that are not yet or no longer.
    pub fn for_each_flow(&self, mut visit: impl FnMut(&Tuple, &Flow)) -> Result<(), PinsError> {
        let scan = |map, fd: &OwnedFd, visit: &mut dyn FnMut(&Tuple, &Flow)| {
            sys::for_each_batch(fd.as_fd(), |tuples: &[Tuple], flows: &[Flow]| {
                tuples.iter().zip(flows).for_each(|(tuple, flow)| visit(tuple, flow));
            })
            .map_err(|source| PinsError::Sys { map, source })
        };
        // A flow that is promoted leaves its entry in `transient` to be evicted.
        let mut established = HashSet::new();
        scan("flows", &self.flows, &mut |tuple, flow| {
            established.insert(*tuple);
            visit(tuple, flow);
        })?;
        scan("transient", &self.transient, &mut |tuple, flow| {
            if !established.contains(tuple) {
                visit(tuple, flow);
            }
        })
    }

    pub fn for_each_reply(&self, mut visit: impl FnMut(&Tuple, &Reply)) -> Result<(), PinsError> {
        sys::for_each_batch(self.replies.as_fd(), |tuples: &[Tuple], replies: &[Reply]| {
            tuples.iter().zip(replies).for_each(|(tuple, reply)| visit(tuple, reply));
        })
        .map_err(|source| PinsError::Sys { map: "replies", source })
    }

    /// Summed over the CPUs.
    pub fn service_counters(&self, service: u32) -> Result<ServiceCounters, PinsError> {
        let cpus = self.service_counters.get(&service, 0);
        let cpus = cpus.map_err(|source| PinsError::Read { map: "service_counters", source })?;
        Ok(cpus.iter().fold(ServiceCounters::default(), |sum, cpu| ServiceCounters {
            flows: sum.flows.wrapping_add(cpu.flows),
            packets_in: sum.packets_in.wrapping_add(cpu.packets_in),
            packets_out: sum.packets_out.wrapping_add(cpu.packets_out),
            bytes_in: sum.bytes_in.wrapping_add(cpu.bytes_in),
            bytes_out: sum.bytes_out.wrapping_add(cpu.bytes_out),
        }))
    }

    /// Summed over the CPUs.
    pub fn backend_counters(&self, backend: u32) -> Result<BackendCounters, PinsError> {
        self.backend_counters
            .of(backend)
            .map_err(|source| PinsError::Read { map: "backend_counters", source })
    }

    /// How often each verdict was reached, summed over the CPUs.
    pub fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, PinsError> {
        let count = |verdict: Verdict| {
            let cpus = self.verdicts.get(&(verdict as u32), 0);
            let cpus = cpus.map_err(|source| PinsError::Read { map: "verdicts", source })?;
            Ok((verdict, cpus.iter().fold(0_u64, |sum, cpu| sum.wrapping_add(*cpu))))
        };
        Verdict::ALL.into_iter().map(count).collect()
    }
}

impl From<&Flow> for FlowRef {
    fn from(flow: &Flow) -> Self {
        Self {
            vip: flow.vip,
            service: flow.service,
            backend: flow.backend,
            backend_port: flow.backend_port,
            backend_id: flow.backend_id,
            generation: flow.generation,
        }
    }
}
