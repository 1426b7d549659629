//! The kernel's maps, behind the trait.

mod batch;

use super::{
    Dataplane, DataplaneError, Dump, FlowRef, Operation,
    pins::{PinDir, PinsError},
    sys::{self, Access, MappedWords, SysError},
    windows::Windows,
};
use aya::maps::{HashMap, MapData, MapError};
use batch::{Batch, Failed, Turn};
use mcs_proxy_ebpf::abi::{Address, BackendState, Element, Flow, MapName, ServiceKey, Tuple, VipFlags};
use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

/// Writes the pinned maps. There must be one at a time, on all the node.
pub struct KernelDataplane {
    services: HashMap<MapData, ServiceKey, u32>,
    /// The same, for calls that aya lacks.
    services_fd: OwnedFd,
    vips: HashMap<MapData, Address, VipFlags>,
    vips_fd: OwnedFd,
    hot: MappedWords,
    frontends: MappedWords,
    backends: Windows,
    backend_state: Windows,
    cursors: OwnedFd,
    service_counters: OwnedFd,
    backend_counters: OwnedFd,
    flows: OwnedFd,
    transient: OwnedFd,
}

impl fmt::Debug for KernelDataplane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // aya's arrays and logger have no Debug.
        formatter.debug_struct("KernelDataplane").field("services", &self.services).finish_non_exhaustive()
    }
}

impl KernelDataplane {
    /// Opens what [`load`](super::loader::load) has pinned.
    pub fn open(dir: &PinDir) -> Result<Self, PinsError> {
        let access = Access::ReadWrite;
        Ok(Self {
            services: dir.open_as(MapName::Services, access)?,
            services_fd: dir.open(MapName::Services, access)?,
            vips: dir.open_as(MapName::Vips, access)?,
            vips_fd: dir.open(MapName::Vips, access)?,
            hot: dir.map_words(MapName::Hot, access)?,
            frontends: dir.map_words(MapName::Frontends, access)?,
            backends: Windows::open(dir, MapName::Backends)?,
            backend_state: Windows::open(dir, MapName::BackendState)?,
            cursors: dir.open(MapName::Cursors, access)?,
            service_counters: dir.open(MapName::ServiceCounters, access)?,
            backend_counters: dir.open(MapName::BackendCounters, access)?,
            flows: dir.open(MapName::Flows, access)?,
            transient: dir.open(MapName::Transient, access)?,
        })
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), Failure> {
        match operation {
            Operation::WriteExtent { first, elements } => {
                for (index, element) in (*first as usize..).zip(elements) {
                    self.backends
                        .write_element(index, *element)
                        .map_err(|error| Failure { map: MapName::Backends, source: error.into() })?
                        .ok_or(Failure::out_of_range(MapName::Backends))?;
                }
                Ok(())
            }
            Operation::Publish { frontend, extent } => {
                store(MapName::Frontends, &self.frontends, *frontend, u64::from(*extent))
            }
            Operation::RemoveService { key } => match self.services.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
                Err(error) => Err(Failure::of(MapName::Services, error)),
            },
            Operation::SetVip { vip, flags: Some(flags) } => {
                self.vips.insert(vip, flags, 0).map_err(|error| Failure::of(MapName::Vips, error))
            }
            Operation::SetVip { vip, flags: None } => match self.vips.remove(vip) {
                Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
                Err(error) => Err(Failure::of(MapName::Vips, error)),
            },
            Operation::SetBackendState { backend, state } => {
                let stored = self.backend_state.store(*backend as usize, state.word());
                let failed = |error: SysError| Failure { map: MapName::BackendState, source: error.into() };
                stored.map_err(failed)?.ok_or(Failure::out_of_range(MapName::BackendState))
            }
            Operation::SetHot { word, bits } => store(MapName::Hot, &self.hot, *word, *bits),
            // The batch takes these.
            Operation::InsertService { .. }
            | Operation::ResetService { .. }
            | Operation::ResetBackend { .. } => Ok(()),
            Operation::GracePeriodOver => Ok(()),
            Operation::GracePeriod => {
                grace_period();
                Ok(())
            }
        }
    }

    fn flow_refs(&self) -> Result<BTreeSet<FlowRef>, DataplaneError> {
        let mut refs = BTreeSet::new();
        for (map, fd) in [("flows", &self.flows), ("transient", &self.transient)] {
            sys::for_each_batch(fd.as_fd(), |_: &[Tuple], flows: &[Flow]| {
                refs.extend(flows.iter().map(FlowRef::from));
            })
            .map_err(|error| dump_error(map, error))?;
        }
        Ok(refs)
    }
}

impl Dataplane for KernelDataplane {
    fn run(&mut self, transaction: &[Operation]) -> Result<(), DataplaneError> {
        let mut batch = Batch::default();
        for operation in transaction {
            match batch.take(operation) {
                Turn::Taken => continue,
                Turn::Now => {}
                Turn::AfterBatch => self.flush(&mut batch).map_err(Failed::told)?,
            }
            self.apply(operation).map_err(|failure| failure.told(operation))?;
        }
        self.flush(&mut batch).map_err(Failed::told)
    }

    fn dump(&self) -> Result<Dump, DataplaneError> {
        let services = self.services.iter().collect::<Result<_, _>>().map_err(|error| DataplaneError {
            map: MapName::Services.as_str(),
            action: "reading all entries".to_owned(),
            source: io::Error::other(error),
        })?;
        let vips = self.vips.iter().collect::<Result<_, _>>().map_err(|error| DataplaneError {
            map: MapName::Vips.as_str(),
            action: "reading all entries".to_owned(),
            source: io::Error::other(error),
        })?;
        let words =
            |map: &MappedWords| (0..map.len()).map_while(|index| map.read(index)).collect::<Vec<u64>>();
        let backends = self.backends.whole().map_err(|error| dump_error("backends", error))?;
        let states = self.backend_state.whole().map_err(|error| dump_error("backend_state", error))?;
        Ok(Dump {
            services,
            vips,
            frontends: words(&self.frontends),
            backends: (0..).map_while(|index| backends.read_element(index)).collect::<Vec<Element>>(),
            backend_state: words(&states).into_iter().map(BackendState::from_word).collect(),
            hot: words(&self.hot),
            flows: self.flow_refs()?,
        })
    }
}

/// Why an operation failed, and on which map.
struct Failure {
    map: MapName,
    source: io::Error,
}

impl Failure {
    fn of(map: MapName, error: MapError) -> Self {
        Self { map, source: io::Error::other(error) }
    }

    fn told(self, operation: &Operation) -> DataplaneError {
        DataplaneError { map: self.map.as_str(), action: format!("{operation:?}"), source: self.source }
    }

    fn out_of_range(map: MapName) -> Self {
        Self { map, source: io::Error::new(io::ErrorKind::InvalidInput, "index out of range") }
    }
}

fn store(map: MapName, words: &MappedWords, index: u32, value: u64) -> Result<(), Failure> {
    words.store_release(index as usize, value).ok_or(Failure::out_of_range(map))
}

fn dump_error(map: &'static str, error: SysError) -> DataplaneError {
    DataplaneError { map, action: "reading all entries".to_owned(), source: error.into() }
}

/// Waits until no program runs that began before. Where membarrier(2) is refused (a `nohz_full` CPU, a seccomp
/// profile), waits for longer than any program runs: the verifier's million instructions take a few milliseconds.
pub fn grace_period() {
    const LONGER_THAN_ANY_PROGRAM: Duration = Duration::from_millis(100);
    if let Err(error) = sys::membarrier_global() {
        tracing::debug!(%error, "no memory barrier: waiting for {LONGER_THAN_ANY_PROGRAM:?}");
        thread::sleep(LONGER_THAN_ANY_PROGRAM);
    }
}
