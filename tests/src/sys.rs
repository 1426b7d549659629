//! The only `unsafe` code of the harness: namespaces, signals and raw packets, through libc.
#![expect(unsafe_code, reason = "the one place for it")]

use std::{
    ffi::{CStr, CString},
    fs::File,
    io, mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_network_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: no memory is passed; the descriptor is open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn enter_new_network_namespace() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the string outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// What is different for a process that [`isolate`] prepares.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    pub(crate) network: Option<File>,
    /// (file to show, path to show it at), in a mount namespace of the process's own.
    pub(crate) files: Vec<(CString, CString)>,
    /// Kill the process when the thread that starts it ends.
    pub(crate) dies_with_us: bool,
    /// A mount and uts namespace of its own, and one for the ids of its children.
    pub(crate) apart: bool,
}

/// Makes a command start in namespaces of its choice.
pub(crate) fn isolate(command: &mut Command, isolation: Isolation) {
    // SAFETY: between fork and exec only system calls are made; all memory was allocated before.
    unsafe { command.pre_exec(move || isolate_this_process(&isolation)) };
}

fn isolate_this_process(isolation: &Isolation) -> io::Result<()> {
    if isolation.dies_with_us {
        // SAFETY: no memory is passed.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    }
    if let Some(network) = &isolation.network {
        enter_network_namespace(network)?;
    }
    if isolation.apart {
        // SAFETY: no memory is passed.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWPID) })?;
    }
    if isolation.files.is_empty() {
        return Ok(());
    }
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    for (file, path) in &isolation.files {
        mount(Some(file), path, libc::MS_BIND)?;
    }
    Ok(())
}

fn mount(source: Option<&CString>, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map_or(ptr::null(), |source| source.as_ptr());
    // SAFETY: the strings outlive the call; null is allowed for the rest.
    check(unsafe { libc::mount(source, target.as_ptr(), ptr::null(), flags, ptr::null()) }).map(drop)
}

/// Where a gated process has the descriptor by which its calls of bpf(2) are decided upon: far from those that it opens.
const GATE: libc::c_int = 500;

/// Has every call of bpf(2) of a command's process wait until a [`Listener`] has decided upon it.
pub(crate) fn gate(command: &mut Command) {
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(gate_this_process) };
}

fn gate_this_process() -> io::Result<()> {
    // Load a word, jump if equal, return: the instructions of bpf(4) that it takes.
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    // The number of the call is the first word of `struct seccomp_data`.
    let steps = [
        step(LOAD, 0, 0),
        step(EQUAL, 1, libc::SYS_bpf as u32),
        step(RETURN, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call, and the kernel copies it.
    let listener = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    } as libc::c_int)?;
    // SAFETY: no memory is passed. The copy stays open in the program that is started.
    check(unsafe { libc::dup2(listener, GATE) }).map(drop)
}

/// Decides upon the calls of bpf(2) of a process that was [`gate`]d.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    id: u64,
    /// Of `enum bpf_cmd`.
    pub(crate) command: u64,
}

impl Listener {
    pub(crate) fn of(process: u32) -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let process = check(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) } as libc::c_int)?;
        // SAFETY: the descriptor is fresh and nobody else's.
        let process = unsafe { OwnedFd::from_raw_fd(process) };
        // SAFETY: no memory is passed.
        let own = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), GATE, 0) };
        let own = check(own as libc::c_int)?;
        // SAFETY: the descriptor is fresh and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(own) }))
    }

    /// The next call; none once the process has ended.
    pub(crate) fn wait(&self) -> io::Result<Option<Waiting>> {
        loop {
            let mut waiting = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one element is passed, and is there.
            match check(unsafe { libc::poll(&raw mut waiting, 1, -1) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            };
            if waiting.revents & libc::POLLIN == 0 {
                return Ok(None);
            }
            // SAFETY: all of it are numbers; the kernel wants zeros.
            let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
            // SAFETY: the kernel writes one of these.
            let received =
                unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
            match check(received) {
                Ok(_) => return Ok(Some(Waiting { id: call.id, command: call.data.args[0] })),
                // Who called has gone meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the kernel carry a call out, or has it fail with this error.
    pub(crate) fn answer(&self, call: &Waiting, refusal: Option<i32>) -> io::Result<()> {
        let flags = if refusal.is_some() { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 };
        let mut answer =
            libc::seccomp_notif_resp { id: call.id, val: 0, error: -refusal.unwrap_or(0), flags };
        // SAFETY: the kernel reads one of these.
        let sent =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        match check(sent) {
            // Who called has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Waits until any child ends, those included that were left to the first process of a namespace, and returns its id.
pub(crate) fn wait_for_any_child() -> io::Result<u32> {
    loop {
        // SAFETY: null is allowed: the status is of no interest.
        match check(unsafe { libc::waitpid(-1, ptr::null_mut(), 0) }) {
            Ok(id) => return Ok(id.cast_unsigned()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note_signal(_: libc::c_int) {
    let descriptor = SIGNAL_PIPE.load(Ordering::Relaxed);
    // SAFETY: write is async-signal-safe; one byte is read from a static.
    unsafe { libc::write(descriptor, b"!".as_ptr().cast(), 1) };
}

/// From now on SIGINT, SIGTERM and SIGHUP do nothing but make the returned pipe readable.
pub(crate) fn signal_pipe() -> io::Result<File> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    SIGNAL_PIPE.store(ends[1], Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is valid: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = note_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler only makes an async-signal-safe call.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
    }
    // SAFETY: the descriptor is fresh and nobody else's.
    Ok(unsafe { File::from_raw_fd(ends[0]) })
}

/// A raw socket on one interface of the calling thread's network namespace: sends and sees whole frames.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: OwnedFd,
}

impl PacketSocket {
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no memory is passed.
        let descriptor = check(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(every_protocol))
        })?;
        // SAFETY: the descriptor is fresh and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let index = interface_index(interface)?;
        // SAFETY: an all-zero address is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every_protocol;
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address is of the length that is passed and outlives the call.
        check(unsafe {
            libc::bind(
                descriptor.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
        Ok(Self { descriptor })
    }

    /// Sends a whole frame, from the Ethernet header on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is of the length that is passed.
        let sent = unsafe { libc::send(self.descriptor.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame that arrives (those that leave are passed over), or `None` after a while without any.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0_u8; 1 << 16];
        loop {
            let mut waiting =
                libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: one entry is passed.
            if check(unsafe { libc::poll(&raw mut waiting, 1, milliseconds) })? == 0 {
                return Ok(None);
            }
            // SAFETY: an all-zero address is valid.
            let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
            let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: buffer and address are of the lengths that are passed.
            let length = unsafe {
                libc::recvfrom(
                    self.descriptor.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                frame.truncate(length);
                return Ok(Some(frame));
            }
        }
    }
}

/// What the calling thread has used of a processor.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorTime {
    pub all: Duration,
    /// The kernel's share of it. Kernels that look once a tick which of the two it is are right on average.
    pub kernel: Duration,
}

/// Since the calling thread began.
///
/// # Errors
/// The kernel's.
pub fn processor_time() -> io::Result<ProcessorTime> {
    // SAFETY: all-zero is valid for a structure of integers.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: there is room for the answer.
    check(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) })?;
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs()) + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    let (user, kernel) = (time(usage.ru_utime), time(usage.ru_stime));
    Ok(ProcessorTime { all: user + kernel, kernel })
}

/// bpf(2), whose commands each have their own attributes.
fn bpf<A>(command: libc::c_int, attributes: &mut A) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes the structure, whose size is passed, and what its pointers, which the callers
    // take from live values, refer to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<A>()) };
    check(result.try_into().map_err(io::Error::other)?)
}

fn bpf_descriptor<A>(command: libc::c_int, mut attributes: A) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, &mut attributes)?;
    // SAFETY: the descriptor is fresh and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// An array map of one number.
pub(crate) fn create_counter() -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    create_map(ARRAY, 4, 8, 1)
}

/// A map of a kind (`enum bpf_map_type`), with sizes of key and value in bytes, and room for so many entries.
pub(crate) fn create_map(kind: u32, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_int = 0;
    bpf_descriptor(MAP_CREATE, [kind, key, value, entries])
}

/// Puts an entry into a map, whose keys and values are as long as these.
pub(crate) fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    const MAP_UPDATE_ELEM: libc::c_int = 2;
    let mut attributes = [
        map.as_raw_fd() as u64,
        key.as_ptr().expose_provenance() as u64,
        value.as_ptr().expose_provenance() as u64,
        0,
    ];
    bpf(MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Runs a classifier so many times on a packet of nothing, and returns what one run took on average.
pub(crate) fn test_run(program: &OwnedFd, repeat: u32) -> io::Result<Duration> {
    const PROG_TEST_RUN: libc::c_int = 10;
    let packet = [0_u8; 64];
    // Program and (returned) value; sizes of data in and out; both; repetitions and (returned) nanoseconds; no context.
    let mut attributes = [
        program.as_raw_fd() as u64,
        packet.len() as u64,
        packet.as_ptr().expose_provenance() as u64,
        0,
        u64::from(repeat),
        0,
    ];
    bpf(PROG_TEST_RUN, &mut attributes)?;
    Ok(Duration::from_nanos(attributes[4] >> 32))
}

/// The number in it.
pub(crate) fn first_element(map: &OwnedFd) -> io::Result<u64> {
    const MAP_LOOKUP_ELEM: libc::c_int = 1;
    let (key, mut value) = (0_u32, 0_u64);
    let mut attributes = [
        map.as_raw_fd() as u64,
        ptr::from_ref(&key).addr() as u64,
        ptr::from_mut(&mut value).expose_provenance() as u64,
    ];
    bpf(MAP_LOOKUP_ELEM, &mut attributes)?;
    Ok(value)
}

/// Loads a classifier from its instructions.
pub(crate) fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const SCHED_CLS: u64 = 3;
    let count = instructions.len() as u64;
    // Type and count; instructions; licence.
    bpf_descriptor(
        PROG_LOAD,
        [SCHED_CLS | count << 32, instructions.as_ptr().addr() as u64, c"GPL".as_ptr().addr() as u64],
    )
}

/// `BPF_CGROUP_INET4_CONNECT`
const CONNECT4: u32 = 10;

/// Loads a program for `connect4` that allows everything.
pub(crate) fn load_permissive_connect4() -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const CGROUP_SOCK_ADDR: u64 = 18;
    // r0 = 1; exit
    let instructions = [1_u64 << 32 | 0xb7, 0x95];
    let mut attributes = [0_u64; 9];
    // Type and count; instructions; licence; in the upper half of the last, the hook.
    attributes[0] = CGROUP_SOCK_ADDR | (instructions.len() as u64) << 32;
    attributes[1] = instructions.as_ptr().expose_provenance() as u64;
    attributes[2] = c"GPL".as_ptr().expose_provenance() as u64;
    attributes[8] = u64::from(CONNECT4) << 32;
    bpf_descriptor(PROG_LOAD, attributes)
}

/// Attaches it to a cgroup that has none, in the old way, which allows no program beside it or beneath.
pub(crate) fn attach_alone(program: &OwnedFd, cgroup: &File) -> io::Result<()> {
    const PROG_ATTACH: libc::c_int = 8;
    let mut attributes =
        [cgroup.as_raw_fd().cast_unsigned(), program.as_raw_fd().cast_unsigned(), CONNECT4, 0];
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Attaches a program to a hook of an interface, before or after all others.
pub(crate) fn link_tcx(program: &OwnedFd, index: u32, ingress: bool, first: bool) -> io::Result<OwnedFd> {
    const LINK_CREATE: libc::c_int = 28;
    const HOOKS: [u32; 2] = [46, 47];
    const PLACES: [u32; 2] = [1 << 3, 1 << 4];
    let (hook, place) = (HOOKS[usize::from(!ingress)], PLACES[usize::from(!first)]);
    // And no other program that the place would be relative to, nor an expected revision.
    bpf_descriptor(LINK_CREATE, [program.as_raw_fd().cast_unsigned(), index, hook, place, 0, 0, 0, 0])
}

/// Names a program in a BPF file system.
pub(crate) fn pin(program: &OwnedFd, path: &CStr) -> io::Result<()> {
    const OBJ_PIN: libc::c_int = 6;
    bpf(OBJ_PIN, &mut [path.as_ptr().addr() as u64, program.as_raw_fd() as u64]).map(drop)
}

/// The calling thread, for [`interrupt`].
pub(crate) fn this_thread() -> libc::pthread_t {
    // SAFETY: always succeeds.
    unsafe { libc::pthread_self() }
}

/// Sends SIGUSR1, of which nothing is thought, to a thread that lives.
pub(crate) fn interrupt(thread: libc::pthread_t) -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: the handler touches nothing.
    if unsafe { libc::signal(libc::SIGUSR1, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t) }
        == libc::SIG_ERR
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: whoever calls vouches for the thread.
    match unsafe { libc::pthread_kill(thread, libc::SIGUSR1) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
