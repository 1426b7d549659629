//! Maps that were pinned smaller than they are to be now.
//!
//! All of the old state moves aside as it is (`v4` becomes `v4-old`), programs running. Maps whose size is right are shared with
//! it; the others are made anew and filled, before any program uses them. Then each interface gets the new programs, in front
//! of the old ones: what they do not know passes, and is the old ones' as before. Once all have them, what the old ones have
//! opened or changed meanwhile is brought over, and they go. A daemon that is killed on the way is gone on with by the next.

use super::{
    audit::{Kind, kind},
    layouts,
    loader::LoadError,
    pins::PinDir,
    sys::{self, Access, Entries, MapShape, SysError},
};
use aya::util::nr_cpus;
use mcs_proxy_ebpf::abi::{Flow, MapName, Protocol, Reply, RosterEntry, Tuple};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    mem::offset_of,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

/// Old maps whose programs may still run.
#[derive(Debug)]
pub struct Growth {
    old: PathBuf,
    cpus: usize,
    /// By map what was brought over, as it was then.
    copied: BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// Where the old state of this layout is while maps grow.
#[must_use]
pub fn old_dir(dir: &PinDir) -> PathBuf {
    let mut name = dir.path().file_name().unwrap_or_default().to_owned();
    name.push("-old");
    dir.path().with_file_name(name)
}

impl Growth {
    /// Moves the old state aside if `grows`; or goes on with what was moved aside before. `wanted`: the shape of every map.
    pub(super) fn begin(
        dir: &PinDir,
        grows: bool,
        wanted: impl Fn(MapName) -> Option<MapShape>,
    ) -> Result<Option<Self>, LoadError> {
        let old = old_dir(dir);
        let failed = |path: &Path, source| LoadError::Pin { path: path.to_owned(), source };
        let unfinished = !matches!(kind(&old), Ok(Kind::Nothing));
        if grows && unfinished {
            return Err(LoadError::Unfinished { path: old });
        }
        if grows {
            fs::rename(dir.path(), &old).map_err(|source| failed(dir.path(), source))?;
        } else if !unfinished {
            return Ok(None);
        }
        dir.create().map_err(super::loader::Refusal::from)?;
        let cpus = nr_cpus().map_err(|(path, source)| failed(Path::new(path), source))?;
        let growth = Self { old, cpus, copied: BTreeMap::new() };
        for map in MapName::ALL {
            let Some(fd) = growth.open_old(map)? else { continue };
            let shape = sys::map_shape(fd.as_fd()).map_err(|error| failed(&growth.old, error.into()))?;
            let is_shared = may_share(map) && Some(MapShape { id: 0, ..shape }) == wanted(map);
            let path = dir.map(map);
            if is_shared && matches!(kind(&path), Ok(Kind::Nothing)) {
                sys::object_pin(fd.as_fd(), &path).map_err(|error| failed(&path, error.into()))?;
            }
        }
        Ok(Some(growth))
    }

    /// Fills the larger maps, before any program uses them.
    pub(super) fn copy(&mut self, dir: &PinDir) -> Result<(), LoadError> {
        for map in MapName::ALL {
            let copied = self.with(dir, map, |from, to| copy(map, from, to))?;
            self.copied.insert(map.as_str(), copied.unwrap_or_default());
        }
        self.enlist(dir, &HashSet::new())
    }

    /// Brings over what has changed since, once the new programs are everywhere, and takes the old ones off.
    pub fn finish(&self, dir: &PinDir) -> Result<(), LoadError> {
        for map in MapName::ALL {
            let copied = &self.copied[map.as_str()];
            self.with(dir, map, |from, to| catch_up(map, copied, from, to))?;
        }
        self.enlist(dir, &self.copied[MapName::Flows.as_str()].keys().cloned().collect())?;
        let failed = |error| LoadError::Pin { path: self.old.clone(), source: std::io::Error::other(error) };
        layouts::detach(&self.old).map_err(failed)?;
        for map in [MapName::ServiceCounters, MapName::BackendCounters] {
            let copied = &self.copied[map.as_str()];
            self.with(dir, map, |from, to| add_counted(copied, from, to))?;
        }
        layouts::remove(&self.old).map_err(failed)
    }

    fn open_old(&self, map: MapName) -> Result<Option<OwnedFd>, LoadError> {
        open(&self.old.join(map.as_str()))
    }

    /// `None` for a map that is not there, or shared.
    fn with<T>(
        &self,
        dir: &PinDir,
        map: MapName,
        act: impl FnOnce(&Entries<'_>, &Entries<'_>) -> Result<T, SysError>,
    ) -> Result<Option<T>, LoadError> {
        let Some((old, new)) = self.open_old(map)?.zip(open(&dir.map(map))?) else { return Ok(None) };
        let done = Entries::of(old.as_fd(), self.cpus).and_then(|from| {
            let to = Entries::of(new.as_fd(), self.cpus)?;
            if from.shape.id == to.shape.id { Ok(None) } else { act(&from, &to).map(Some) }
        });
        done.map_err(|error| LoadError::Pin { path: dir.map(map), source: error.into() })
    }

    /// The roster is a queue, and cannot be copied without being emptied: it is made of the flows that are not `known`, which
    /// are in it.
    fn enlist(&self, dir: &PinDir, known: &HashSet<Vec<u8>>) -> Result<(), LoadError> {
        self.with(dir, MapName::Roster, |_, roster| {
            let Ok(Some(flows)) = open(&dir.map(MapName::Flows)) else { return Ok(()) };
            let flows = Entries::of(flows.as_fd(), self.cpus)?;
            for key in flows.keys()?.into_iter().filter(|key| !known.contains(key)) {
                let Some(flow) = flows.get(&key)? else { continue };
                let isn = offset_of!(Flow, isn);
                let mut entry = key;
                entry.extend(flow.get(isn..isn + 4).unwrap_or(&[0; 4]));
                entry.resize(size_of::<RosterEntry>(), 0);
                roster.put(&[], &entry, false)?;
            }
            Ok(())
        })
        .map(drop)
    }
}

const _: () = assert!(offset_of!(RosterEntry, isn) == size_of::<Tuple>());

fn open(path: &Path) -> Result<Option<OwnedFd>, LoadError> {
    match sys::object_get(path, Access::ReadWrite) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(LoadError::Pin { path: path.to_owned(), source: error.into() }),
    }
}

/// What programs old and new may use side by side. Not the flows: the old ones would take the new ones' packets, which are
/// translated when they come to them, for the pod's own calls to a backend by the tuple of a flow.
const fn may_share(map: MapName) -> bool {
    !matches!(
        map,
        MapName::Flows
            | MapName::Replies
            | MapName::Transient
            | MapName::TransientReplies
            | MapName::Roster
            | MapName::Fragments
            | MapName::Stages
    )
}

/// What holds state that neither the next sync nor the next packet restores as it was.
const fn is_copied(map: MapName) -> bool {
    match map {
        MapName::Services
        | MapName::Vips
        | MapName::Frontends
        | MapName::Backends
        | MapName::BackendState
        | MapName::Cursors
        | MapName::ServiceCounters
        | MapName::BackendCounters
        | MapName::Flows
        | MapName::Replies
        | MapName::Transient
        | MapName::TransientReplies
        | MapName::Affinity
        | MapName::SocketBackends
        | MapName::SocketOrigins => true,
        // Of one size whatever the flags say; or made anew.
        MapName::Hot
        | MapName::Roster
        | MapName::Heartbeat
        | MapName::Fragments
        | MapName::InterfaceFlows
        | MapName::Rejects
        | MapName::Interfaces
        | MapName::Stages
        | MapName::Verdicts
        | MapName::Events
        | MapName::SocketPeers => false,
    }
}

/// Where the values tell when a packet was last seen.
fn date(map: MapName) -> Option<usize> {
    if matches!(map, MapName::Flows | MapName::Transient) {
        Some(offset_of!(Flow, last_seen))
    } else if matches!(map, MapName::Replies | MapName::TransientReplies) {
        Some(offset_of!(Reply, last_seen))
    } else {
        None
    }
}

fn seen(value: &[u8], date: usize) -> u32 {
    let bytes = value.get(date..date + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

/// Returns what may change until the old programs are gone.
fn copy(map: MapName, from: &Entries<'_>, to: &Entries<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, SysError> {
    let mut copied = BTreeMap::new();
    if !is_copied(map) {
        return Ok(copied);
    }
    for key in from.keys()? {
        let Some(value) = from.get(&key)? else { continue };
        if let Some(date) = date(map) {
            // What an unfinished attempt has brought over may have been used since.
            put_later(to, &key, &value, date)?;
            copied.insert(key, value);
        } else {
            to.put(&key, &value, false)?;
            let is_counter = matches!(map, MapName::ServiceCounters | MapName::BackendCounters);
            if is_counter && value.iter().any(|byte| *byte != 0) {
                copied.insert(key, value);
            }
        }
    }
    Ok(copied)
}

/// Of two entries, the one that saw the later packet stays; what has ended among the old ones ends here, unless a packet has
/// been seen here since.
fn catch_up(
    map: MapName,
    copied: &BTreeMap<Vec<u8>, Vec<u8>>,
    from: &Entries<'_>,
    to: &Entries<'_>,
) -> Result<(), SysError> {
    let Some(date) = date(map) else { return Ok(()) };
    let mut present = HashSet::new();
    for key in from.keys()? {
        let Some(value) = from.get(&key)? else { continue };
        if copied.get(&key) != Some(&value) {
            put_later(to, &key, &value, date)?;
        }
        present.insert(key);
    }
    // Datagrams that come to the old programs translated end their flow there.
    let is_tcp = |key: &[u8]| key.get(offset_of!(Tuple, protocol)) == Some(&Protocol::Tcp.number());
    for (key, value) in copied.iter().filter(|(key, _)| is_tcp(key)) {
        if !present.contains(key) && to.get(key)?.as_ref() == Some(value) {
            to.remove(key)?;
        }
    }
    Ok(())
}

/// Adds what the old programs have counted since. Word by word, although some counters are half a word: a sum of halves that do
/// not overflow is one of words.
fn add_counted(
    copied: &BTreeMap<Vec<u8>, Vec<u8>>,
    from: &Entries<'_>,
    to: &Entries<'_>,
) -> Result<(), SysError> {
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).collect()
    };
    for key in from.keys()? {
        let Some(now) = from.get(&key)? else { continue };
        let before = copied.get(&key).cloned().unwrap_or_else(|| vec![0; now.len()]);
        if now == before {
            continue;
        }
        let Some(known) = to.get(&key)? else { continue };
        let sums = words(&known).into_iter().zip(words(&now)).zip(words(&before));
        let sums: Vec<u8> = sums
            .flat_map(|((known, now), before)| known.wrapping_add(now).wrapping_sub(before).to_le_bytes())
            .collect();
        to.put(&key, &sums, false)?;
    }
    Ok(())
}

fn put_later(to: &Entries<'_>, key: &[u8], value: &[u8], date: usize) -> Result<(), SysError> {
    let is_later = match to.get(key)? {
        None => true,
        Some(known) => (seen(value, date).wrapping_sub(seen(&known, date)) as i32) >= 0,
    };
    if is_later {
        to.put(key, value, false)?;
    }
    Ok(())
}
