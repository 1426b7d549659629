//! The programs on the pods' interfaces.
//!
//! Where the kernel has TCX, each attachment is a link that is pinned under the interface's index: it outlives the
//! daemon, and the next daemon puts its own programs behind the same link, so that no packet goes by meanwhile.
//!
//! Elsewhere a `clsact` filter stands in. It has no pin; it is found again by its priority and handle, which are
//! ours ([`FILTER_HANDLE`]), and replaced in place. The kernel takes such filters by the interface's name, which may
//! change at any time: it is asked for by index just before, and compared after. What clsact lacks: of an interface that was excluded while no daemon
//! ran, nobody knows that it still has our filters (`tc filter show dev NAME ingress` does).

use super::{
    loader::{LoadError, Programs},
    pins::{PinDir, link_suffix},
    sys::{self, Access, SysError, TcxHook},
};
use aya::programs::{
    ProgramError, TcAttachType,
    links::Link,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use mcs_proxy_ebpf::abi::Direction;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    str::FromStr,
};

/// How programs are attached: `--hook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Hook {
    /// TCX, and clsact where the kernel does not know it (before 6.6).
    #[default]
    Auto,
    Tcx,
    Clsact,
}

/// What [`Links::attach`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The interface had no program of ours.
    New,
    /// It had those of an earlier daemon, and has ours now.
    Replaced,
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("interface {ifindex} is gone")]
    Gone { ifindex: u32 },
    #[error("interface {ifindex}: this kernel has no TCX (Linux 6.6 has): use --hook auto or clsact")]
    NoTcx { ifindex: u32 },
    #[error("interface {ifindex}, {suffix}: {source}", suffix = link_suffix(*.direction))]
    Tcx { ifindex: u32, direction: Direction, source: SysError },
    #[error("interface {ifindex} ({name}), {suffix}: clsact: {source}", suffix = link_suffix(*.direction))]
    Clsact { ifindex: u32, name: String, direction: Direction, source: Box<ProgramError> },
    #[error("interface {ifindex} ({name}) was renamed meanwhile")]
    Renamed { ifindex: u32, name: String },
    #[error("{path}: {source}")]
    Pin { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Program(#[from] LoadError),
}

/// "mc", so that a filter of ours is known by its handle.
pub const FILTER_HANDLE: u16 = 0x6d63;
/// First on ingress, last on egress, as among TCX programs.
const INGRESS_PRIORITY: u16 = 1;
const EGRESS_PRIORITY: u16 = u16::MAX;

/// To the pod first: when a connection starts to be translated, its answers are as well.
const ORDER: [Direction; 2] = [Direction::ToPod, Direction::FromPod];

/// Attaches, and knows what is attached.
#[derive(Debug)]
pub struct Links {
    programs: Programs,
    pins: PinDir,
    hook: Hook,
    /// Names by index, as of the attachment.
    attached: BTreeMap<u32, String>,
}

impl Links {
    #[must_use]
    pub fn new(programs: Programs, pins: PinDir, hook: Hook) -> Self {
        Self { programs, pins, hook, attached: BTreeMap::new() }
    }

    /// [`Hook::Auto`] until the first attachment has shown what the kernel knows.
    #[must_use]
    pub const fn hook(&self) -> Hook {
        self.hook
    }

    /// Interfaces that packets are translated on, by index.
    #[must_use]
    pub const fn attached(&self) -> &BTreeMap<u32, String> {
        &self.attached
    }

    /// Those of the other hooks, too.
    pub const fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Whether an interface has both programs, be it an earlier daemon's: those that could not be renewed go on.
    #[must_use]
    pub fn has_both(&self, ifindex: u32) -> bool {
        ORDER.iter().all(|&direction| self.pins.link(ifindex, direction).exists())
    }

    /// Puts both programs on an interface, or renews those that are there. `name` is for people; it may be out of date. Of
    /// programs that cannot be renewed, both stay as they are: they serve by the same maps.
    pub fn attach(&mut self, ifindex: u32, name: &str) -> Result<Attachment, LinkError> {
        let had_both = self.has_both(ifindex);
        let mut attachment = Attachment::Replaced;
        for direction in ORDER {
            match self.attach_one(ifindex, direction) {
                Ok(Attachment::Replaced) => {}
                Ok(Attachment::New) => attachment = Attachment::New,
                Err(error) => {
                    self.attached.insert(ifindex, name.to_owned());
                    // One direction alone would leave answers, or worse requests, untranslated.
                    if !(had_both && self.has_both(ifindex)) {
                        self.detach(ifindex)?;
                    }
                    return Err(error);
                }
            }
        }
        self.attached.insert(ifindex, name.to_owned());
        Ok(attachment)
    }

    /// Takes both programs off. An interface that is gone has none, and its pins go.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), LinkError> {
        let is_attached = self.attached.remove(&ifindex).is_some();
        for direction in ORDER.into_iter().rev() {
            unpin(&self.pins.link(ifindex, direction))?;
            if is_attached && self.hook == Hook::Clsact {
                detach_filter(ifindex, direction);
            }
        }
        Ok(())
    }

    /// At the start: removes the pins, and with them the programs, of interfaces that are gone or not ours any more.
    /// Returns their indices.
    pub fn sweep(&self, ours: &BTreeSet<u32>) -> Result<BTreeSet<u32>, LinkError> {
        let mut swept = BTreeSet::new();
        for (ifindex, path) in pinned(&self.pins)? {
            if !ours.contains(&ifindex) {
                unpin(&path)?;
                swept.insert(ifindex);
            }
        }
        Ok(swept)
    }

    fn attach_one(&mut self, ifindex: u32, direction: Direction) -> Result<Attachment, LinkError> {
        if self.hook == Hook::Clsact {
            return self.attach_clsact(ifindex, direction);
        }
        match self.attach_tcx(ifindex, direction) {
            Ok(attachment) => {
                self.hook = Hook::Tcx;
                Ok(attachment)
            }
            Err(LinkError::NoTcx { .. }) if self.hook == Hook::Auto => {
                tracing::warn!("this kernel has no TCX (Linux 6.6 has): using clsact filters");
                self.hook = Hook::Clsact;
                self.attach_clsact(ifindex, direction)
            }
            Err(error) => Err(error),
        }
    }

    fn attach_tcx(&self, ifindex: u32, direction: Direction) -> Result<Attachment, LinkError> {
        let path = self.pins.link(ifindex, direction);
        let program = self.programs.fd(direction)?;
        let tcx_error = |source: SysError| match source.errno() {
            Some(libc::ENODEV) => LinkError::Gone { ifindex },
            Some(libc::EINVAL) => LinkError::NoTcx { ifindex },
            Some(_) | None => LinkError::Tcx { ifindex, direction, source },
        };
        match sys::object_get(&path, Access::ReadWrite) {
            Ok(link) => {
                let info = sys::tcx_link_info(link.as_fd()).map_err(tcx_error)?;
                let is_this = info
                    .is_some_and(|info| info.ifindex == ifindex && info.attach_type == tcx(direction) as u32);
                if is_this {
                    match sys::link_update(link.as_fd(), program) {
                        Ok(()) => return Ok(Attachment::Replaced),
                        // The interface went between the two calls, or somebody has detached the link.
                        Err(error) if matches!(error.errno(), Some(libc::ENOLINK | libc::ENOENT)) => {}
                        // What is there goes on.
                        Err(source) => return Err(LinkError::Tcx { ifindex, direction, source }),
                    }
                }
                unpin(&path)?;
            }
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            Err(error) => return Err(LinkError::Pin { path, source: error.into() }),
        }
        let link = sys::tcx_link_create(program, ifindex, tcx(direction)).map_err(tcx_error)?;
        sys::object_pin(link.as_fd(), &path)
            .map_err(|error| LinkError::Pin { path, source: error.into() })?;
        // An earlier daemon may have been told to use the other hook.
        detach_filter(ifindex, direction);
        Ok(Attachment::New)
    }

    fn attach_clsact(&mut self, ifindex: u32, direction: Direction) -> Result<Attachment, LinkError> {
        let name = sys::interface_name(ifindex).ok_or(LinkError::Gone { ifindex })?;
        let attachment = self.attach_filter(ifindex, &name, direction)?;
        if sys::interface_name(ifindex).as_ref() != Some(&name) {
            // Whatever has the name now was not meant.
            detach_filter_by_name(&name, direction);
            return Err(LinkError::Renamed { ifindex, name });
        }
        Ok(attachment)
    }

    fn attach_filter(
        &mut self,
        ifindex: u32,
        name: &str,
        direction: Direction,
    ) -> Result<Attachment, LinkError> {
        let clsact_error = |source: ProgramError| match errno(&source) {
            Some(libc::ENODEV) => LinkError::Gone { ifindex },
            Some(_) | None => {
                LinkError::Clsact { ifindex, name: name.to_owned(), direction, source: Box::new(source) }
            }
        };
        match qdisc_add_clsact(name).map_err(ProgramError::from) {
            Err(error) if errno(&error) != Some(libc::EEXIST) => return Err(clsact_error(error)),
            Ok(()) | Err(_) => {}
        }
        let (hook, priority) = clsact(direction);
        let handle = TcHandle::new(0, FILTER_HANDLE);
        let program = self.programs.classifier(direction)?;
        let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid: None });
        let (id, attachment) = match program.attach_with_options(name, hook, options) {
            Ok(id) => (id, Attachment::New),
            Err(error) if errno(&error) == Some(libc::EEXIST) => {
                let old = SchedClassifierLink::attached(name, hook, priority, handle, None)
                    .map_err(|source| LinkError::Pin { path: name.into(), source })?;
                (program.attach_to_link(old).map_err(clsact_error)?, Attachment::Replaced)
            }
            Err(error) => return Err(clsact_error(error)),
        };
        // aya detaches what it drops; the filter is to stay when the daemon ends.
        std::mem::forget(program.take_link(id).map_err(clsact_error)?);
        // An earlier daemon may have been told to use the other hook.
        unpin(&self.pins.link(ifindex, direction))?;
        Ok(attachment)
    }
}

const fn tcx(direction: Direction) -> TcxHook {
    match direction {
        Direction::FromPod => TcxHook::Ingress,
        Direction::ToPod => TcxHook::Egress,
    }
}

const fn clsact(direction: Direction) -> (TcAttachType, u16) {
    match direction {
        Direction::FromPod => (TcAttachType::Ingress, INGRESS_PRIORITY),
        Direction::ToPod => (TcAttachType::Egress, EGRESS_PRIORITY),
    }
}

/// Of a filter of ours.
#[must_use]
pub const fn filter_priority(direction: Direction) -> u16 {
    clsact(direction).1
}

fn errno(error: &ProgramError) -> Option<i32> {
    if let ProgramError::TcError(TcError::NetlinkError(error)) = error {
        return error.raw_os_error();
    }
    if let ProgramError::TcError(TcError::IoError(error)) = error {
        return error.raw_os_error();
    }
    None
}

/// There may be none, or the interface may be gone, and its filters with it.
fn detach_filter(ifindex: u32, direction: Direction) {
    if let Some(name) = sys::interface_name(ifindex) {
        detach_filter_by_name(&name, direction);
    }
}

fn detach_filter_by_name(name: &str, direction: Direction) {
    let (hook, priority) = clsact(direction);
    let handle = TcHandle::new(0, FILTER_HANDLE);
    let detached = SchedClassifierLink::attached(name, hook, priority, handle, None)
        .map_err(|error| error.to_string())
        .and_then(|link| link.detach().map_err(|error| error.to_string()));
    if let Err(error) = detached {
        tracing::trace!(interface = name, error, "no filter to take off");
    }
}

/// All pins of links, with the index in their names.
fn pinned(pins: &PinDir) -> Result<Vec<(u32, PathBuf)>, LinkError> {
    let dir = pins.links();
    let error = |source| LinkError::Pin { path: dir.clone(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(error)? {
        let entry = entry.map_err(error)?;
        let index = entry.file_name().to_str().and_then(|name| name.split_once('-')?.0.parse().ok());
        found.extend(index.map(|index| (index, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

/// Detaches at once, and removes the pin.
pub(super) fn unpin(path: &Path) -> Result<(), LinkError> {
    if let Ok(link) = sys::object_get(path, Access::ReadWrite)
        && let Err(error) = sys::link_detach(link.as_fd())
    {
        // It detaches with its pin as well, only later.
        tracing::debug!(path = %path.display(), %error);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LinkError::Pin { path: path.to_owned(), source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "tcx" => Ok(Self::Tcx),
            "clsact" => Ok(Self::Clsact),
            other => Err(format!("`{other}` is none of auto, tcx, clsact")),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}
