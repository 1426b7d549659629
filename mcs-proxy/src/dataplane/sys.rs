//! System calls that no dependency wraps: the only `unsafe` code of this crate.
//!
//! The layouts are those of `union bpf_attr` and `struct bpf_link_info` in `include/uapi/linux/bpf.h` (Linux 6.6).
//! The kernel takes shorter attributes than its own, and longer ones whose tail is zero.

#![expect(unsafe_code, reason = "system calls and shared memory")]

use aya::Pod;
use mcs_proxy_ebpf::abi::{Element, Event};
use std::{
    collections::HashSet,
    ffi::{CStr, CString, c_int, c_long},
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A system call failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct SysError {
    pub call: &'static str,
    pub source: io::Error,
}

impl SysError {
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether it failed for want of rights.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EACCES | libc::EPERM))
    }

    fn last(call: &'static str) -> Self {
        Self { call, source: io::Error::last_os_error() }
    }
}

impl From<SysError> for io::Error {
    fn from(error: SysError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

type Result<T> = std::result::Result<T, SysError>;

/// Commands of bpf(2).
#[derive(Clone, Copy)]
#[repr(u32)]
enum Command {
    MapLookupElem = 1,
    MapUpdateElem = 2,
    MapDeleteElem = 3,
    MapGetNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

impl Command {
    const fn name(self) -> &'static str {
        match self {
            Self::MapLookupElem => "BPF_MAP_LOOKUP_ELEM",
            Self::MapDeleteElem => "BPF_MAP_DELETE_ELEM",
            Self::MapGetNextKey => "BPF_MAP_GET_NEXT_KEY",
            Self::ProgLoad => "BPF_PROG_LOAD",
            Self::ObjPin => "BPF_OBJ_PIN",
            Self::ObjGet => "BPF_OBJ_GET",
            Self::ObjGetInfoByFd => "BPF_OBJ_GET_INFO_BY_FD",
            Self::ProgQuery => "BPF_PROG_QUERY",
            Self::MapUpdateElem => "BPF_MAP_UPDATE_ELEM",
            Self::MapLookupBatch => "BPF_MAP_LOOKUP_BATCH",
            Self::MapUpdateBatch => "BPF_MAP_UPDATE_BATCH",
            Self::LinkCreate => "BPF_LINK_CREATE",
            Self::LinkUpdate => "BPF_LINK_UPDATE",
            Self::LinkDetach => "BPF_LINK_DETACH",
        }
    }
}

/// # Safety
///
/// `attr` is what the command takes, and its pointers are valid for what the command does to them.
unsafe fn bpf<T>(command: Command, attr: &mut T) -> Result<c_long> {
    // SAFETY: the caller vouches for the contents; pointer and size are those of a live value.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(SysError::last(command.name())) } else { Ok(result) }
}

/// # Safety
///
/// As [`bpf`], and the command returns a new descriptor.
unsafe fn bpf_fd<T>(command: Command, attr: &mut T) -> Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let fd = unsafe { bpf(command, attr) }?;
    let fd = c_int::try_from(fd)
        .map_err(|error| SysError { call: command.name(), source: io::Error::other(error) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn c_path(path: &Path, command: Command) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| SysError { call: command.name(), source: io::Error::other(error) })
}

/// Where a TCX program runs: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum TcxHook {
    Ingress = 46,
    Egress = 47,
}

const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;

/// Attaches a program to an interface by TCX: first of all on ingress, last of all on egress, which is what
/// "before" and "after" without a relative mean (`kernel/bpf/mprog.c`). The link lives as long as the descriptor or
/// a pin.
///
/// # Errors
///
/// EINVAL where the kernel does not know TCX (before 6.6).
pub fn tcx_link_create(program: BorrowedFd<'_>, ifindex: u32, hook: TcxHook) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        relative_fd: u32,
        pad: u32,
        expected_revision: u64,
    }
    let flags = match hook {
        TcxHook::Ingress => BPF_F_BEFORE,
        TcxHook::Egress => BPF_F_AFTER,
    };
    let mut attr = Attr {
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type: hook as u32,
        flags,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
    };
    // SAFETY: the attribute is BPF_LINK_CREATE's, has no pointers, and a link descriptor comes back.
    unsafe { bpf_fd(Command::LinkCreate, &mut attr) }
}

/// Attaches a program to a cgroup, beside those of others. The link lives as long as the descriptor or a pin.
///
/// `hook`: a number of `enum bpf_attach_type`.
///
/// # Errors
///
/// EBADF if the directory is not of a cgroup2, EINVAL where the kernel does not know the hook.
pub fn cgroup_link_create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr { prog_fd: raw(program), target_fd: raw(cgroup), attach_type: hook, flags: 0 };
    // SAFETY: the attribute is BPF_LINK_CREATE's, has no pointers, and a link descriptor comes back.
    unsafe { bpf_fd(Command::LinkCreate, &mut attr) }
}

/// Loads a program for a cgroup hook that does nothing, and lets go of it.
///
/// `hook`: a number of `enum bpf_attach_type`, of those that are called with an address (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`).
///
/// # Errors
///
/// EINVAL where the kernel does not know the hook.
pub fn probe_socket_hook(hook: u32) -> Result<()> {
    const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
    /// `r0 = 1`, which is to go on; `exit`.
    const INSTRUCTIONS: [u64; 2] = [1 << 32 | 0xb7, 0x95];
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attr = Attr {
        prog_type: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        insn_cnt: INSTRUCTIONS.len() as u32,
        insns: INSTRUCTIONS.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: hook,
    };
    // As with every program: the verifier gives up when a signal is pending.
    let _held = HeldSignals::on_this_thread();
    let mut tries = 1;
    loop {
        // SAFETY: the attribute is BPF_PROG_LOAD's, its pointers are to constants, and a program's descriptor comes back.
        match unsafe { bpf_fd(Command::ProgLoad, &mut attr) } {
            Err(error) if error.errno() == Some(libc::EAGAIN) && tries < 5 => tries += 1,
            loaded => return loaded.map(drop),
        }
    }
}

/// The cgroup and the hook of a cgroup link; `None` if the descriptor is a link of another type. The cgroup is 0 when
/// it is gone, else the inode of its directory.
pub fn cgroup_link_info(link: BorrowedFd<'_>) -> Result<Option<(u64, u32)>> {
    const BPF_LINK_TYPE_CGROUP: u32 = 3;
    /// `struct bpf_link_info` with its largest member in place of the union.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program_id: u32,
        pad: u32,
        cgroup: u64,
        attach_type: u32,
        rest: [u32; 9],
    }
    let mut info = Info::default();
    info_by_fd(link, &mut info)?;
    Ok((info.kind == BPF_LINK_TYPE_CGROUP).then_some((info.cgroup, info.attach_type)))
}

/// Puts another program behind a link, in one step: no packet sees neither or both.
///
/// # Errors
///
/// ENOLINK if the interface is gone.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr { link_fd: raw(link), new_prog_fd: raw(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: the attribute is BPF_LINK_UPDATE's and has no pointers.
    unsafe { bpf(Command::LinkUpdate, &mut attr) }.map(drop)
}

/// Takes a link's program off at once. When the last descriptor or pin goes instead, a worker does it some time
/// later (`bpf_link_put`).
pub fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
    }
    let mut attr = Attr { link_fd: raw(link) };
    // SAFETY: the attribute is BPF_LINK_DETACH's and has no pointers.
    unsafe { bpf(Command::LinkDetach, &mut attr) }.map(drop)
}

/// What the kernel says of a TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLink {
    pub id: u32,
    pub program_id: u32,
    /// 0 when the interface is gone.
    pub ifindex: u32,
    pub attach_type: u32,
}

/// `None` if the descriptor is a link of another type.
pub fn tcx_link_info(link: BorrowedFd<'_>) -> Result<Option<TcxLink>> {
    const BPF_LINK_TYPE_TCX: u32 = 11;
    /// `struct bpf_link_info` with its largest member in place of the union.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program_id: u32,
        pad: u32,
        ifindex: u32,
        attach_type: u32,
        rest: [u64; 5],
    }
    let mut info = Info::default();
    info_by_fd(link, &mut info)?;
    let Info { kind, id, program_id, ifindex, attach_type, .. } = info;
    Ok((kind == BPF_LINK_TYPE_TCX).then_some(TcxLink { id, program_id, ifindex, attach_type }))
}

fn info_by_fd<T>(fd: BorrowedFd<'_>, info: &mut T) -> Result<()> {
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut attr = Attr {
        bpf_fd: raw(fd),
        info_len: size_of::<T>() as u32,
        info: ptr::from_mut(info).expose_provenance() as u64,
    };
    // SAFETY: the pointer is to a live value of the given size, which consists of integers (private callers only).
    unsafe { bpf(Command::ObjGetInfoByFd, &mut attr) }.map(drop)
}

/// Programs on a TCX hook, in the order in which they run, as (program id, link id); the link id is 0 for a program
/// that was attached without one.
pub fn tcx_query(ifindex: u32, hook: TcxHook) -> Result<Vec<(u32, u32)>> {
    prog_query(ifindex, hook as u32)
}

/// The same of any hook: `target` is an interface's index or the descriptor of a cgroup's directory, `hook` a number of
/// `enum bpf_attach_type`. Of a cgroup, those that were attached to it, not to its parents.
///
/// # Errors
///
/// EINVAL where the kernel does not know the hook.
pub fn prog_query(target: u32, hook: u32) -> Result<Vec<(u32, u32)>> {
    #[repr(C)]
    struct Attr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        pad: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    // BPF_MPROG_MAX (include/linux/bpf_mprog.h): there are never more.
    let (mut programs, mut links) = ([0_u32; 64], [0_u32; 64]);
    let mut attr = Attr {
        target,
        attach_type: hook,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: programs.as_mut_ptr().expose_provenance() as u64,
        count: 64,
        pad: 0,
        prog_attach_flags: 0,
        link_ids: links.as_mut_ptr().expose_provenance() as u64,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the attribute is BPF_PROG_QUERY's; both arrays live and have room for `count` ids.
    unsafe { bpf(Command::ProgQuery, &mut attr) }?;
    Ok(programs.into_iter().zip(links).take(attr.count as usize).collect())
}

#[repr(C)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins a map, program or link.
pub fn object_pin(object: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let path = c_path(path, Command::ObjPin)?;
    let pathname = path.as_ptr().expose_provenance() as u64;
    let mut attr = PathAttr { pathname, bpf_fd: raw(object), file_flags: 0 };
    // SAFETY: the attribute is BPF_OBJ_PIN's, and the path is a live C string.
    unsafe { bpf(Command::ObjPin, &mut attr) }.map(drop)
}

/// What a pinned object is opened for. Programs and links know read and write only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Access {
    ReadWrite = 0,
    /// `BPF_F_RDONLY`
    ReadOnly = 1 << 3,
}

/// Opens a pinned map, program or link.
pub fn object_get(path: &Path, access: Access) -> Result<OwnedFd> {
    let path = c_path(path, Command::ObjGet)?;
    let pathname = path.as_ptr().expose_provenance() as u64;
    let mut attr = PathAttr { pathname, bpf_fd: 0, file_flags: access as u32 };
    // SAFETY: the attribute is BPF_OBJ_GET's, the path is a live C string, and a descriptor comes back.
    unsafe { bpf_fd(Command::ObjGet, &mut attr) }
}

/// The parts of `struct bpf_map_info` that everything here depends on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapShape {
    /// `enum bpf_map_type`
    pub kind: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

pub fn map_shape(map: BorrowedFd<'_>) -> Result<MapShape> {
    let mut shape = MapShape::default();
    info_by_fd(map, &mut shape)?;
    Ok(shape)
}

/// The part of `union bpf_attr` that the commands for many elements take.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writing several elements failed at one of them; those before it are written.
#[derive(Debug)]
pub struct BatchError {
    pub at: usize,
    pub error: SysError,
}

/// Enters or overwrites elements of a hash or an array, by one system call.
///
/// # Errors
///
/// E2BIG where a hash is full.
pub fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> std::result::Result<(), BatchError> {
    let count = keys.len().min(values.len());
    if count == 0 {
        return Ok(());
    }
    check_sizes(map, size_of::<K>(), size_of::<V>()).map_err(|error| BatchError { at: 0, error })?;
    // SAFETY: both slices have `count` elements of the sizes that the map has, as checked above.
    unsafe { write_batch(map, keys.as_ptr().cast(), values.as_ptr().cast(), count) }
}

/// Makes elements of an array zero, on every processor if it has values for each.
pub fn zero_elements(array: BorrowedFd<'_>, indices: &[u32]) -> std::result::Result<(), BatchError> {
    /// Bounds the memory that the zeros take.
    const AT_ONCE: usize = 4096;
    let no_element = |error| BatchError { at: 0, error };
    if indices.is_empty() {
        return Ok(());
    }
    let size = array_value_size(array).map_err(no_element)?;
    let zeros = vec![0_u8; size * indices.len().min(AT_ONCE)];
    for (chunk, indices) in indices.chunks(AT_ONCE).enumerate() {
        // SAFETY: as many indices as are told, of the size that an array's keys have; and zeros for as many values.
        let written =
            unsafe { write_batch(array, indices.as_ptr().cast(), zeros.as_ptr().cast(), indices.len()) };
        match written {
            // Before Linux 5.13 arrays with values for each processor could not.
            Err(BatchError { error, .. }) if error.errno() == Some(ENOTSUPP) => {
                for (at, index) in indices.iter().enumerate() {
                    update_element(array, index, &zeros)
                        .map_err(|error| BatchError { at: chunk * AT_ONCE + at, error })?;
                }
            }
            written => {
                written.map_err(|BatchError { at, error }| BatchError { at: chunk * AT_ONCE + at, error })?;
            }
        }
    }
    Ok(())
}

/// `include/linux/errno.h`: known to the kernel alone, and returned all the same.
const ENOTSUPP: c_int = 524;

fn check_sizes(map: BorrowedFd<'_>, key: usize, value: usize) -> Result<()> {
    let shape = map_shape(map)?;
    if (shape.key_size as usize, shape.value_size as usize) == (key, value) {
        return Ok(());
    }
    let message = format!("entries are {} and {} bytes", shape.key_size, shape.value_size);
    let source = io::Error::new(io::ErrorKind::InvalidInput, message);
    Err(SysError { call: Command::MapUpdateBatch.name(), source })
}

/// What a value of an array takes in user space: with values for each processor, each is rounded up to 8 bytes.
fn array_value_size(array: BorrowedFd<'_>) -> Result<usize> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
    let error = |source| SysError { call: Command::MapUpdateBatch.name(), source };
    let shape = map_shape(array)?;
    let size = shape.value_size as usize;
    match shape.kind {
        BPF_MAP_TYPE_ARRAY => Ok(size),
        BPF_MAP_TYPE_PERCPU_ARRAY => {
            let cpus = aya::util::nr_cpus().map_err(|(_, source)| error(source))?;
            Ok(size.next_multiple_of(8) * cpus)
        }
        kind => {
            let message = format!("a map of type {kind} is no array");
            Err(error(io::Error::new(io::ErrorKind::InvalidInput, message)))
        }
    }
}

/// # Safety
///
/// `keys` and `values` have `count` elements of the sizes that the map's have in user space.
unsafe fn write_batch(
    map: BorrowedFd<'_>,
    keys: *const u8,
    values: *const u8,
    count: usize,
) -> std::result::Result<(), BatchError> {
    if count == 0 {
        return Ok(());
    }
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.expose_provenance() as u64,
        values: values.expose_provenance() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map_fd: raw(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attribute is BPF_MAP_UPDATE_BATCH's; the caller vouches for what its pointers lead to.
    match unsafe { bpf(Command::MapUpdateBatch, &mut attr) } {
        Ok(_) => Ok(()),
        // The kernel says how many were written; on some errors it leaves what it was told.
        Err(error) => {
            let written = attr.count as usize;
            Err(BatchError { at: if written < count { written } else { 0 }, error })
        }
    }
}

/// Overwrites an element of an array with values for each processor; `value` has room for one of them all.
fn update_element(array: BorrowedFd<'_>, index: &u32, value: &[u8]) -> Result<()> {
    #[repr(C)]
    struct Attr {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut attr = Attr {
        map_fd: raw(array),
        pad: 0,
        key: ptr::from_ref(index).expose_provenance() as u64,
        value: value.as_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the attribute is BPF_MAP_UPDATE_ELEM's; an array's keys are u32, and the caller's value is long enough.
    unsafe { bpf(Command::MapUpdateElem, &mut attr) }.map(drop)
}

/// Calls `visit` with every entry of a hash map, some thousands at a time. Entries that come or go meanwhile may or
/// may not be seen; those that stay are seen once, as a bucket is copied whole.
pub fn for_each_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut visit: impl FnMut(&[K], &[V])) -> Result<()> {
    let call = Command::MapLookupBatch.name();
    let shape = map_shape(map)?;
    if (shape.key_size as usize, shape.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
        let message = format!("entries are {} and {} bytes", shape.key_size, shape.value_size);
        return Err(SysError { call, source: io::Error::new(io::ErrorKind::InvalidInput, message) });
    }
    let mut room = 4096_usize;
    // The position in a hash map is a bucket's number, a u32.
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut is_first = true;
    loop {
        let mut keys = Vec::<K>::with_capacity(room);
        let mut values = Vec::<V>::with_capacity(room);
        let mut attr = BatchAttr {
            in_batch: if is_first { 0 } else { ptr::from_mut(&mut from).expose_provenance() as u64 },
            out_batch: ptr::from_mut(&mut to).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: room as u32,
            map_fd: raw(map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attribute is BPF_MAP_LOOKUP_BATCH's; the vectors have room for `count` keys and values of the
        // sizes that the map has, as checked above.
        let done = unsafe { bpf(Command::MapLookupBatch, &mut attr) };
        let is_last = match done {
            Ok(_) => false,
            // The last entries come with this error.
            Err(error) if error.errno() == Some(libc::ENOENT) => true,
            // A bucket holds more than there is room for.
            Err(error) if error.errno() == Some(libc::ENOSPC) && room < 1 << 24 => {
                room *= 4;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = (attr.count as usize).min(room);
        // SAFETY: the kernel has written `count` of both, and any bit pattern is a value of a `Pod` type.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        visit(&keys, &values);
        if is_last {
            return Ok(());
        }
        (from, is_first) = (to, false);
    }
}

/// The entries of a map whose keys and values are bytes to us: of another layout, or of every map alike.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    map: BorrowedFd<'a>,
    pub shape: MapShape,
    /// Bytes of a value as system calls carry it: of a per-CPU map one for each CPU.
    value_bytes: usize,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<'a> Entries<'a> {
    /// `cpus`: how many the kernel may ever have.
    pub fn of(map: BorrowedFd<'a>, cpus: usize) -> Result<Self> {
        // BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH
        const PER_CPU: [u32; 3] = [5, 6, 10];
        let shape = map_shape(map)?;
        let value = shape.value_size as usize;
        let value_bytes =
            if PER_CPU.contains(&shape.kind) { value.next_multiple_of(8) * cpus } else { value };
        Ok(Self { map, shape, value_bytes })
    }

    /// Every key, each once. Keys that come or go meanwhile may or may not be among them.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let mut seen = HashSet::new();
        let mut keys = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        // Where the last key is gone, the kernel begins anew.
        for _ in 0..self.shape.max_entries.saturating_mul(2).saturating_add(16) {
            let mut next = vec![0_u8; self.shape.key_size as usize];
            let key = last.as_ref().map_or(0, |key| key.as_ptr().expose_provenance() as u64);
            let to = next.as_mut_ptr().expose_provenance() as u64;
            let mut attr = ElementAttr { map_fd: raw(self.map), pad: 0, key, value: to, flags: 0 };
            // SAFETY: the attribute is BPF_MAP_GET_NEXT_KEY's; both keys are of the map's size.
            match unsafe { bpf(Command::MapGetNextKey, &mut attr) } {
                Ok(_) => {}
                Err(error) if error.errno() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
            if seen.insert(next.clone()) {
                keys.push(next.clone());
            }
            last = Some(next);
        }
        Ok(keys)
    }

    /// `None`: there is no such entry.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0_u8; self.value_bytes];
        let to = value.as_mut_ptr().expose_provenance() as u64;
        let mut attr = self.attr(key, to, 0)?;
        // SAFETY: the attribute is BPF_MAP_LOOKUP_ELEM's; key and value are of the map's sizes.
        match unsafe { bpf(Command::MapLookupElem, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Enters a value, or exchanges it. `false`: there is one under this key already, and it was to be new.
    ///
    /// # Errors
    /// E2BIG if the map is full.
    pub fn put(&self, key: &[u8], value: &[u8], is_new: bool) -> Result<bool> {
        const BPF_NOEXIST: u64 = 1;
        if value.len() != self.value_bytes {
            return Err(Self::misfit("value", value.len(), self.value_bytes));
        }
        let flags = if is_new { BPF_NOEXIST } else { 0 };
        let mut attr = self.attr(key, value.as_ptr().expose_provenance() as u64, flags)?;
        // SAFETY: the attribute is BPF_MAP_UPDATE_ELEM's; key and value are of the map's sizes.
        match unsafe { bpf(Command::MapUpdateElem, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `false`: there was none.
    pub fn remove(&self, key: &[u8]) -> Result<bool> {
        let mut attr = self.attr(key, 0, 0)?;
        // SAFETY: the attribute is BPF_MAP_DELETE_ELEM's; the key is of the map's size.
        match unsafe { bpf(Command::MapDeleteElem, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A queue's keys are none.
    fn attr(&self, key: &[u8], value: u64, flags: u64) -> Result<ElementAttr> {
        if key.len() != self.shape.key_size as usize {
            return Err(Self::misfit("key", key.len(), self.shape.key_size as usize));
        }
        let key = if key.is_empty() { 0 } else { key.as_ptr().expose_provenance() as u64 };
        Ok(ElementAttr { map_fd: raw(self.map), pad: 0, key, value, flags })
    }

    fn misfit(what: &str, is: usize, should_be: usize) -> SysError {
        let message = format!("a {what} of {is} bytes, where the map has {should_be}");
        SysError { call: "bpf", source: io::Error::new(io::ErrorKind::InvalidInput, message) }
    }
}

/// Elements of a `BPF_F_MMAPABLE` array, as words in memory that is shared with the kernel.
#[derive(Debug)]
pub struct MappedWords {
    words: NonNull<AtomicU64>,
    len: usize,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping, not to a thread, and is accessed by atomic operations alone.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps a whole array, whose elements are of 8 bytes or a multiple.
    ///
    /// The descriptor must be open for writing even to map it for reading: of one that is not, `do_mmap` makes a
    /// private mapping, which `bpf_map_mmap` refuses.
    pub fn map(array: BorrowedFd<'_>, access: Access) -> Result<Self> {
        Self::map_part(array, access, 0, mapped_len(array)?)
    }

    /// Maps so many words of an array from one on that is at the start of a page.
    pub fn map_part(array: BorrowedFd<'_>, access: Access, first: usize, len: usize) -> Result<Self> {
        let bytes = len * 8;
        let offset = libc::off_t::try_from(first * 8).unwrap_or(libc::off_t::MAX);
        let protection = match access {
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            Access::ReadOnly => libc::PROT_READ,
        };
        // SAFETY: a new mapping at an address of the kernel's choice. The kernel refuses arrays that are not
        // mmapable, and maps no more than the array, rounded up to a page.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, array.as_raw_fd(), offset)
        };
        let words = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED);
        words.map(|words| Self { words, len, bytes }).ok_or_else(|| SysError::last("mmap"))
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn read(&self, index: usize) -> Option<u64> {
        self.word(index).map(|word| word.load(Ordering::Acquire))
    }

    /// Stores a word. Whoever sees it sees what was stored before it. `None`: out of range.
    #[must_use]
    pub fn store_release(&self, index: usize, value: u64) -> Option<()> {
        self.word(index).map(|word| word.store(value, Ordering::Release))
    }

    /// Subtracts atomically, as the programs add.
    pub fn fetch_sub(&self, index: usize, value: u64) -> Option<u64> {
        self.word(index).map(|word| word.fetch_sub(value, Ordering::Relaxed))
    }

    #[must_use]
    pub fn read_element(&self, index: usize) -> Option<Element> {
        let first = index.checked_mul(ELEMENT_WORDS)?;
        let mut words = [0; ELEMENT_WORDS];
        for (offset, word) in words.iter_mut().enumerate() {
            *word = self.read(first + offset)?;
        }
        // SAFETY: same size, and any bit pattern is an element (it is `Pod`).
        Some(unsafe { std::mem::transmute::<[u64; ELEMENT_WORDS], Element>(words) })
    }

    /// Writes an element word by word: for one that no program reads.
    #[must_use]
    pub fn write_element(&self, index: usize, element: Element) -> Option<()> {
        let words = element_words(element);
        let first = index.checked_mul(ELEMENT_WORDS)?;
        words.into_iter().enumerate().try_for_each(|(offset, word)| self.store_release(first + offset, word))
    }

    /// An event as it lies there, which may be half of one: see [`Event::is_whole`].
    #[must_use]
    pub fn read_event(&self, index: usize) -> Option<Event> {
        let first = index.checked_mul(EVENT_WORDS)?;
        let mut words = [0; EVENT_WORDS];
        for (offset, word) in words.iter_mut().enumerate() {
            *word = self.read(first + offset)?;
        }
        // SAFETY: same size, and any bit pattern is an event (it is `Pod`).
        Some(unsafe { std::mem::transmute::<[u64; EVENT_WORDS], Event>(words) })
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: in range of the mapping, which lives as long as `self`; aligned, as a mapping starts at a page;
        // and only ever accessed by atomic operations on this side.
        (index < self.len).then(|| unsafe { self.words.add(index).as_ref() })
    }
}

const ELEMENT_WORDS: usize = size_of::<Element>() / 8;
const EVENT_WORDS: usize = size_of::<Event>() / 8;

/// How many words a `BPF_F_MMAPABLE` array has: the kernel spaces elements by their size rounded up to 8
/// (`array_map_alloc`).
pub fn mapped_len(array: BorrowedFd<'_>) -> Result<usize> {
    let shape = map_shape(array)?;
    Ok(shape.max_entries as usize * (shape.value_size as usize).div_ceil(8))
}

/// An element as it lies in the map.
#[must_use]
pub const fn element_words(element: Element) -> [u64; ELEMENT_WORDS] {
    // SAFETY: same size, and the element has no padding (the contract asserts it).
    unsafe { std::mem::transmute::<Element, [u64; ELEMENT_WORDS]>(element) }
}

/// How long this thread has had a core.
#[must_use]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes one timespec. It can't fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Hands what is free of the heap back to the kernel. It holds up whoever allocates meanwhile, for some milliseconds.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes its own locks, and leaves what is in use alone.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps our own code: what runs is mapped again, from the page cache, a block at a time. Most of it has run once, at the
/// start, and would count as resident for ever.
pub fn trim_code() {
    // SAFETY: the linker's names for the first byte of the program and the one behind its code (ld(1), etext(3)). Only
    // their addresses are taken.
    unsafe extern "C" {
        safe static __executable_start: u8;
        safe static etext: u8;
    }
    // SAFETY: it takes a number, and there is always an answer to this one.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1 << 16);
    let start = (&raw const __executable_start).addr().next_multiple_of(page);
    let end = (&raw const etext).addr() / page * page;
    // SAFETY: nobody ever writes to these pages, so what comes back is what was there: a program that is loaded at any
    // address has nothing to relocate in its code and what lies before it.
    unsafe {
        libc::madvise(ptr::without_provenance_mut(start), end.saturating_sub(start), libc::MADV_DONTNEED)
    };
}

/// Has the threads share one heap, and large blocks go back to the kernel when they are freed, whatever was freed
/// before: glibc would give each thread a heap of its own, and would raise that size with the first list of objects.
/// Before the first thread.
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: they set a number each.
    unsafe {
        const LARGE: c_int = 256 << 10;
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more. It can't fail for a valid range.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.bytes) };
    }
}

/// Waits until every program has ended that ran when this was called: MEMBARRIER_CMD_GLOBAL is `synchronize_rcu`,
/// and programs run inside an RCU read-side section.
///
/// # Errors
///
/// EINVAL on a kernel with `nohz_full` CPUs (membarrier(2)), EPERM or ENOSYS under a seccomp profile.
pub fn membarrier_global() -> Result<()> {
    const MEMBARRIER_CMD_GLOBAL: c_int = 1;
    // SAFETY: takes two integers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(SysError::last("membarrier")) } else { Ok(()) }
}

/// While it lives, the thread that made it takes no signal but SIGKILL and SIGSTOP. Another thread of the process takes
/// what is sent to the process; what is sent to this one waits.
#[derive(Debug)]
pub struct HeldSignals {
    before: libc::sigset_t,
    /// The mask is the thread's.
    _here: PhantomData<*const ()>,
}

impl HeldSignals {
    pub fn on_this_thread() -> Self {
        let mut before = MaybeUninit::uninit();
        let mut all = MaybeUninit::uninit();
        // SAFETY: fills the set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: reads a set that is filled and writes the one from before. Fails only for a `how` that is none.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: written by the call above.
        Self { before: unsafe { before.assume_init() }, _here: PhantomData }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: reads the set; null: what was until now is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// The thread's effective capabilities, one bit each (capabilities(7)).
pub fn effective_capabilities() -> Result<u64> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two elements, for 64 capabilities.
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: capget(2) takes a header and, for version 3, an array of two.
    let result = unsafe { libc::syscall(libc::SYS_capget, ptr::from_mut(&mut header), data.as_mut_ptr()) };
    if result < 0 {
        return Err(SysError::last("capget"));
    }
    Ok(u64::from(data[0].effective) | (u64::from(data[1].effective) << 32))
}

/// The kernel's number of this thread's network namespace, as `bpf_get_netns_cookie` returns it.
///
/// # Errors
///
/// ENOPROTOOPT before Linux 5.14.
pub fn netns_cookie() -> Result<u64> {
    let socket = UnixDatagram::unbound().map_err(|source| SysError { call: "socket", source })?;
    let mut cookie = 0_u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a u64, and the kernel is told that there is room for one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            ptr::from_mut(&mut cookie).cast(),
            &raw mut size,
        )
    };
    if result < 0 { Err(SysError::last("getsockopt(SO_NETNS_COOKIE)")) } else { Ok(cookie) }
}

/// `include/uapi/linux/magic.h`
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;

const CGROUP2_MAGIC: libc::__fsword_t = 0x6367_7270;

/// Whether a path is on a BPF file system.
pub fn is_bpffs(path: &Path) -> Result<bool> {
    Ok(file_system(path)? == BPF_FS_MAGIC)
}

/// Whether a path is on a file system, or a mount of one, that is read-only.
pub fn is_read_only(path: &Path) -> Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|error| SysError { call: "statvfs", source: io::Error::other(error) })?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a live C string, and there is room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } < 0 {
        return Err(SysError::last("statvfs"));
    }
    // SAFETY: statvfs succeeded, so it has filled the structure.
    Ok(unsafe { found.assume_init() }.f_flag & libc::ST_RDONLY != 0)
}

/// Whether a path is on a cgroup2 file system.
pub fn is_cgroup2(path: &Path) -> Result<bool> {
    Ok(file_system(path)? == CGROUP2_MAGIC)
}

fn file_system(path: &Path) -> Result<libc::__fsword_t> {
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|error| SysError { call: "statfs", source: io::Error::other(error) })?;
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a live C string, and there is room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) } < 0 {
        return Err(SysError::last("statfs"));
    }
    // SAFETY: statfs succeeded, so it has filled the structure.
    Ok(unsafe { found.assume_init() }.f_type)
}

/// The kernel's CONFIG_HZ: the coarse clocks tick once a jiffy (clock_getres(2)).
pub fn kernel_hz() -> Result<u32> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) } < 0 {
        return Err(SysError::last("clock_getres"));
    }
    // Rounded, because a jiffy is no whole number of nanoseconds at every HZ.
    let nanoseconds = u32::try_from(resolution.tv_nsec.max(1)).unwrap_or(u32::MAX);
    Ok((1_000_000_000 + nanoseconds / 2) / nanoseconds)
}

/// How long ago the machine was booted, the time asleep included.
pub fn boot_time() -> Result<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } < 0 {
        return Err(SysError::last("clock_gettime"));
    }
    let seconds = Duration::from_secs(now.tv_sec.try_into().unwrap_or_default());
    Ok(seconds + Duration::from_nanos(now.tv_nsec.try_into().unwrap_or_default()))
}

/// The index of an interface of the calling thread's network namespace; `None` if there is none of this name.
#[must_use]
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a live C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name that an interface of the calling thread's network namespace has now; `None` if it is gone.
#[must_use]
pub fn interface_name(ifindex: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function asks for.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    Some(CStr::from_bytes_until_nul(&name).ok()?.to_string_lossy().into_owned())
}
